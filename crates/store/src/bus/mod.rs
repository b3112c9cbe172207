//! The Bus: a request to whoever serves a subject, and its answer.
//!
//! ```text
//!   asker ── subject, bytes, time-out ──▶ one of the servers of the subject
//!         ◀──────────── bytes ──────────
//! ```
//!
//! A subject is words joined by dots. Several may serve one; each request goes to exactly one of
//! them. Whoever asks gets the answer, or an error by its time-out: a server that drops a request,
//! or is gone, is not waited for longer. Nothing is kept: what must not be lost is in the database of
//! whoever asks.

mod calls;
mod local;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::oneshot;

pub use calls::{Calls, Server};
pub use local::LocalBus;

/// Most bytes of a request or an answer: a message of NATS (1 MiB) less its headers.
pub const MAX_MESSAGE_BYTES: usize = (1 << 20) - 4096;
/// Most characters of a subject.
const MAX_SUBJECT: usize = 200;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BusError {
    /// The subject is not words joined by dots.
    #[error("'{0}' is not a subject")]
    BadSubject(String),
    /// Nobody serves the subject.
    #[error("nobody serves {0}")]
    NobodyServes(String),
    /// There was no answer in time.
    #[error("no answer from {subject} within {timeout:?}")]
    TimedOut {
        /// What was asked.
        subject: String,
        /// How long was waited.
        timeout: Duration,
    },
    /// The message is over [`MAX_MESSAGE_BYTES`].
    #[error("a message of {bytes} bytes is too large for the Bus")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
}

/// Carries requests and answers.
#[async_trait]
pub trait Bus: Send + Sync {
    /// Asks whoever serves the subject. A slow server is waited for until the time-out.
    ///
    /// # Errors
    /// [`BusError`].
    async fn request(
        &self,
        subject: &str,
        payload: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, BusError>;

    /// Serves a subject from now on, until what is returned is dropped.
    ///
    /// # Errors
    /// [`BusError::BadSubject`].
    async fn serve(&self, subject: &str) -> Result<Box<dyn Requests>, BusError>;
}

/// The requests that come to one server.
#[async_trait]
pub trait Requests: Send {
    /// The next one; nothing, once the Bus is gone.
    async fn next(&mut self) -> Option<Request>;
}

/// A request that waits for its answer.
#[derive(Debug)]
pub struct Request {
    /// What was sent.
    pub payload: Bytes,
    reply: oneshot::Sender<Bytes>,
}

impl Request {
    /// Answers it. Who asked may have left.
    ///
    /// # Errors
    /// [`BusError::TooLarge`]; who asked gets no answer.
    pub fn answer(self, payload: Bytes) -> Result<(), BusError> {
        check_size(&payload)?;
        let _ = self.reply.send(payload);
        Ok(())
    }

    /// Whether who asked has left.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        self.reply.is_closed()
    }
}

fn check_size(payload: &Bytes) -> Result<(), BusError> {
    let bytes = payload.len();
    if bytes > MAX_MESSAGE_BYTES {
        return Err(BusError::TooLarge { bytes });
    }
    Ok(())
}

fn check_subject(subject: &str) -> Result<(), BusError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let word = |word: &str| !word.is_empty() && word.bytes().all(plain);
    if subject.len() <= MAX_SUBJECT && subject.split('.').all(word) {
        Ok(())
    } else {
        Err(BusError::BadSubject(subject.into()))
    }
}
