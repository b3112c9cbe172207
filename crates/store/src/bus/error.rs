//! Why a request got no answer.

use std::time::Duration;

use super::limits::MAX_MESSAGE_BYTES;

/// Why a request got no answer, or a server could not be one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BusError {
    /// No server has the subject. Nobody got the request.
    #[error("nobody listens on {subject}")]
    NobodyListens {
        /// What was asked.
        subject: String,
    },
    /// There was no answer in time. A server may have got the request.
    #[error("no answer on {subject} within {} ms", timeout.as_millis())]
    TimedOut {
        /// What was asked.
        subject: String,
        /// How long the asker was ready to wait.
        timeout: Duration,
    },
    /// The server dropped the request, or went away with it. It may have carried it out.
    #[error("the server of {subject} gave no answer")]
    Unanswered {
        /// What was asked.
        subject: String,
    },
    /// The payload is over the cap. Nobody got it.
    #[error("{bytes} bytes on {subject}, at most {MAX_MESSAGE_BYTES} are carried")]
    TooLarge {
        /// Where it was to go.
        subject: String,
        /// Size of the payload.
        bytes: usize,
    },
    /// This Bus was closed.
    #[error("the bus is closed")]
    Closed,
    /// A subject that does not follow the rules of [`check_subject`](super::check_subject).
    #[error("{subject:?} is no subject: {reason}")]
    BadSubject {
        /// What was given, or its beginning.
        subject: String,
        /// The rule that it breaks.
        reason: &'static str,
    },
}

impl BusError {
    /// Whether no server can have got the request, so that asking again does nothing twice.
    #[must_use]
    pub fn nothing_was_done(&self) -> bool {
        match self {
            Self::NobodyListens { .. } | Self::TooLarge { .. } | Self::BadSubject { .. } => true,
            Self::TimedOut { .. } | Self::Unanswered { .. } | Self::Closed => false,
        }
    }
}
