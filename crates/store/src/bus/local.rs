//! The Bus of one process.
//!
//! Each subject that has a server has one queue, and its servers take from that: an idle one never
//! waits beside a busy one. The queue goes with its last server; what is left in it is dropped, and
//! the askers learn that at once. So does the asker of a request that a server drops.

mod queue;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::oneshot;

use self::queue::{Pending, Queue};
use super::{Answering, Bus, BusError, MAX_MESSAGE_BYTES, QUEUE, Request, Requests, check_subject};

/// The Bus of one process. Clones are the same Bus.
#[derive(Clone, Default)]
pub struct LocalBus {
    subjects: Arc<RwLock<Subjects>>,
}

#[derive(Default)]
struct Subjects {
    closed: bool,
    /// Only subjects that have a server.
    queues: HashMap<String, Arc<Queue>>,
}

impl LocalBus {
    /// A Bus without servers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    // Nothing panics while it holds the lock, so what is behind a poisoned one is whole.
    fn read(&self) -> RwLockReadGuard<'_, Subjects> {
        self.subjects.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Subjects> {
        self.subjects
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn queue(&self, subject: &str) -> Result<Arc<Queue>, BusError> {
        let subjects = self.read();
        if subjects.closed {
            return Err(BusError::Closed);
        }
        subjects
            .queues
            .get(subject)
            .cloned()
            .ok_or_else(|| nobody(subject))
    }

    async fn ask(&self, subject: &str, payload: Bytes) -> Result<Bytes, BusError> {
        let queue = self.queue(subject)?;
        let (answer, answered) = oneshot::channel();
        let pending = Pending { payload, answer };
        if queue.push(pending).await.is_err() {
            // The last server left, or the Bus was closed, before the request was in the queue.
            return Err(self.gone(nobody(subject)));
        }
        drop(queue);
        answered.await.map_err(|_| {
            self.gone(BusError::Unanswered {
                subject: subject.to_owned(),
            })
        })
    }

    /// The error of a request whose queue ended: that the Bus was closed says more than the other.
    fn gone(&self, other: BusError) -> BusError {
        if self.read().closed {
            BusError::Closed
        } else {
            other
        }
    }
}

fn nobody(subject: &str) -> BusError {
    BusError::NobodyListens {
        subject: subject.to_owned(),
    }
}

#[async_trait]
impl Bus for LocalBus {
    async fn request(
        &self,
        subject: &str,
        payload: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, BusError> {
        check_subject(subject)?;
        if payload.len() > MAX_MESSAGE_BYTES {
            return Err(BusError::TooLarge {
                subject: subject.to_owned(),
                bytes: payload.len(),
            });
        }
        match tokio::time::timeout(timeout, self.ask(subject, payload)).await {
            Ok(result) => result,
            Err(_) => Err(BusError::TimedOut {
                subject: subject.to_owned(),
                timeout,
            }),
        }
    }

    async fn serve(&self, subject: &str) -> Result<Box<dyn Requests>, BusError> {
        check_subject(subject)?;
        let mut subjects = self.write();
        if subjects.closed {
            return Err(BusError::Closed);
        }
        let queue = subjects
            .queues
            .entry(subject.to_owned())
            .or_insert_with(|| Arc::new(Queue::new(QUEUE)));
        queue.enter();
        Ok(Box::new(Server {
            subject: subject.to_owned(),
            queue: Arc::clone(queue),
            bus: self.clone(),
        }))
    }

    async fn close(&self) {
        let mut subjects = self.write();
        subjects.closed = true;
        for (_, queue) in subjects.queues.drain() {
            queue.end();
        }
    }
}

struct Server {
    subject: String,
    queue: Arc<Queue>,
    bus: LocalBus,
}

#[async_trait]
impl Requests for Server {
    async fn next(&mut self) -> Option<Request> {
        let pending = self.queue.pop().await?;
        let answering = Box::new(Asker(pending.answer));
        Some(Request::new(
            self.subject.clone(),
            pending.payload,
            answering,
        ))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Under the lock, so that no new server enters a queue that ends.
        let mut subjects = self.bus.write();
        if self.queue.leave() {
            subjects.queues.remove(&self.subject);
        }
    }
}

struct Asker(oneshot::Sender<Bytes>);

#[async_trait]
impl Answering for Asker {
    async fn answer(self: Box<Self>, answer: Bytes) -> Result<(), BusError> {
        // An asker that left wants no answer.
        let _ = self.0.send(answer);
        Ok(())
    }
}
