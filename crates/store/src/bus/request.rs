//! A request as its server sees it.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;

use super::error::BusError;
use super::limits::MAX_MESSAGE_BYTES;

/// How an implementation of the Bus takes an answer back.
#[async_trait]
pub trait Answering: Send + Sync {
    /// Carries the answer, which is not over the cap. That the asker has left is no error.
    async fn answer(self: Box<Self>, answer: Bytes) -> Result<(), BusError>;
}

/// A request that one server got. Dropped without an answer, its asker gets an error: at once from
/// the local Bus, by the asker's deadline from any.
pub struct Request {
    subject: String,
    payload: Bytes,
    answering: Box<dyn Answering>,
}

impl Request {
    /// For implementations of the Bus.
    #[must_use]
    pub fn new(subject: String, payload: Bytes, answering: Box<dyn Answering>) -> Self {
        Self {
            subject,
            payload,
            answering,
        }
    }

    /// What was asked.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// What the asker sent.
    #[must_use]
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// Answers. An answer over the cap is refused, and the asker gets none.
    pub async fn answer(self, answer: Bytes) -> Result<(), BusError> {
        if answer.len() > MAX_MESSAGE_BYTES {
            return Err(BusError::TooLarge {
                subject: self.subject,
                bytes: answer.len(),
            });
        }
        self.answering.answer(answer).await
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("subject", &self.subject)
            .field("bytes", &self.payload.len())
            .finish_non_exhaustive()
    }
}
