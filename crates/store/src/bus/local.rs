//! The Bus inside one process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::{Bus, BusError, Request, Requests, check_size, check_subject};

/// Requests that may wait for one server. More wait at their askers.
const QUEUED: usize = 256;

/// Carries messages between the tasks of one process. Its clones are the same Bus.
#[derive(Clone, Default)]
pub struct LocalBus {
    subjects: Arc<Mutex<HashMap<String, Servers>>>,
}

/// Those who serve one subject, in turn.
#[derive(Default)]
struct Servers {
    all: Vec<mpsc::Sender<Request>>,
    turn: usize,
}

impl Servers {
    /// Whose turn it is; those who have left are forgotten.
    fn next(&mut self) -> Option<mpsc::Sender<Request>> {
        self.all.retain(|server| !server.is_closed());
        self.turn = self.turn.wrapping_add(1);
        let count = self.all.len();
        (count > 0).then(|| self.all[self.turn % count].clone())
    }
}

impl LocalBus {
    /// A Bus that nobody serves yet.
    #[must_use]
    pub fn new() -> LocalBus {
        LocalBus::default()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Servers>> {
        self.subjects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn server(&self, subject: &str) -> Option<mpsc::Sender<Request>> {
        let mut subjects = self.lock();
        let server = subjects.get_mut(subject)?.next();
        if server.is_none() {
            subjects.remove(subject);
        }
        server
    }
}

#[async_trait]
impl Bus for LocalBus {
    async fn request(
        &self,
        subject: &str,
        payload: Bytes,
        limit: Duration,
    ) -> Result<Bytes, BusError> {
        check_subject(subject)?;
        check_size(&payload)?;
        let nobody = || BusError::NobodyServes(subject.into());
        let server = self.server(subject).ok_or_else(nobody)?;
        let (reply, answer) = oneshot::channel();
        let asked = async {
            let request = Request { payload, reply };
            if server.send(request).await.is_err() {
                return Err(nobody());
            }
            match answer.await {
                Ok(answer) => Ok(answer),
                // Dropped without an answer: as over a network, that is seen by the clock alone.
                Err(_) => std::future::pending().await,
            }
        };
        timeout(limit, asked).await.unwrap_or_else(|_| {
            Err(BusError::TimedOut {
                subject: subject.into(),
                timeout: limit,
            })
        })
    }

    async fn serve(&self, subject: &str) -> Result<Box<dyn Requests>, BusError> {
        check_subject(subject)?;
        let (sender, requests) = mpsc::channel(QUEUED);
        let mut subjects = self.lock();
        subjects.entry(subject.into()).or_default().all.push(sender);
        Ok(Box::new(LocalRequests(requests)))
    }
}

struct LocalRequests(mpsc::Receiver<Request>);

#[async_trait]
impl Requests for LocalRequests {
    async fn next(&mut self) -> Option<Request> {
        self.0.recv().await
    }
}
