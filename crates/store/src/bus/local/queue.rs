//! The requests of one subject that no server has taken yet: bounded, first come first served, for
//! many askers and many servers.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{Notify, Semaphore, oneshot};

/// A request on its way.
pub(super) struct Pending {
    pub(super) payload: Bytes,
    pub(super) answer: oneshot::Sender<Bytes>,
}

/// The queue ended: no server will take from it.
#[derive(Debug)]
pub(super) struct Ended;

pub(super) struct Queue {
    /// One permit for each free place. Closed when the queue ends, which wakes askers that wait.
    places: Semaphore,
    /// Wakes one server for each request, and all of them at the end.
    filled: Notify,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Pending>,
    servers: usize,
    ended: bool,
}

impl Queue {
    pub(super) fn new(places: usize) -> Self {
        Self {
            places: Semaphore::new(places),
            filled: Notify::new(),
            state: Mutex::default(),
        }
    }

    /// Puts a request in, when there is a place for it.
    pub(super) async fn push(&self, pending: Pending) -> Result<(), Ended> {
        let place = self.places.acquire().await.map_err(|_| Ended)?;
        {
            let mut state = self.lock();
            if state.ended {
                return Err(Ended);
            }
            state.waiting.push_back(pending);
        }
        // It goes back when the request is taken.
        place.forget();
        self.filled.notify_one();
        Ok(())
    }

    /// Takes the first request whose asker still waits; none when the queue ended.
    pub(super) async fn pop(&self) -> Option<Pending> {
        loop {
            // Taken before the look at the queue, so that a request put in after that look wakes it.
            let filled = self.filled.notified();
            match self.take() {
                Taken::Request(pending, more) => {
                    if more {
                        // A server that was woken and then dropped may have left this one asleep.
                        self.filled.notify_one();
                    }
                    return Some(pending);
                }
                Taken::Ended => return None,
                Taken::Nothing => filled.await,
            }
        }
    }

    fn take(&self) -> Taken {
        let mut state = self.lock();
        if state.ended {
            return Taken::Ended;
        }
        while let Some(pending) = state.waiting.pop_front() {
            self.places.add_permits(1);
            if !pending.answer.is_closed() {
                return Taken::Request(pending, !state.waiting.is_empty());
            }
        }
        Taken::Nothing
    }

    /// A server more.
    pub(super) fn enter(&self) {
        self.lock().servers += 1;
    }

    /// A server less. Whether it was the last one, with which the queue ended.
    pub(super) fn leave(&self) -> bool {
        let mut state = self.lock();
        state.servers -= 1;
        let last = state.servers == 0 && !state.ended;
        drop(state);
        if last {
            self.end();
        }
        last
    }

    /// Drops what waits, and lets nothing in.
    pub(super) fn end(&self) {
        let dropped = {
            let mut state = self.lock();
            state.ended = true;
            std::mem::take(&mut state.waiting)
        };
        self.places.close();
        self.filled.notify_waiters();
        // Wakes the askers, without the lock.
        drop(dropped);
    }

    // Nothing panics while it holds the lock, so what is behind a poisoned one is whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Taken {
    /// And whether more wait.
    Request(Pending, bool),
    Nothing,
    Ended,
}
