//! The Bus: requests and answers between the gateway, the coordinator and the agents.
//!
//! ```text
//!   asker ── request(subject) ──> [ queue of the subject ] ── next() ──> one of its servers
//!     ^                                                                       │
//!     └───────────────────────────── answer ──────────────────────────────────┘
//! ```
//!
//! Delivery is at most once: a request that ended in [`BusError::TimedOut`] or
//! [`BusError::Unanswered`] was carried out, or is being carried out, or never will be; only
//! [`BusError::NobodyListens`], [`BusError::TooLarge`] and [`BusError::BadSubject`] say that nobody
//! got it. What must survive a crash is in the database first, and is asked again from there.
//!
//! A server that is slow slows its askers: they wait until their own deadline, first for a place in
//! the subject's queue, which holds [`QUEUE`] requests, then for the answer. A request whose asker
//! has left may still reach a server.
//!
//! [`Bus`] moves bytes; [`Calls`] and [`Server`] put typed calls on top; [`LocalBus`] is the implementation for parts
//! in one process. Every implementation passes the suite in `tests/bus`.

mod calls;
mod error;
mod limits;
mod local;
mod request;
mod subject;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

pub use calls::{AT_ONCE, Calls, Server};
pub use error::BusError;
pub use limits::{MAX_MESSAGE_BYTES, MAX_SUBJECT_BYTES, QUEUE};
pub use local::LocalBus;
pub use request::{Answering, Request};
pub use subject::check_subject;

/// A Bus that several parts hold.
pub type SharedBus = Arc<dyn Bus>;

/// Carries requests to servers and answers back.
#[async_trait]
pub trait Bus: Send + Sync {
    /// Asks one of the servers of `subject`, and waits for its answer, no longer than `timeout` in all.
    ///
    /// Requests that one asker makes one after the other reach a single server in that order.
    async fn request(
        &self,
        subject: &str,
        payload: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, BusError>;

    /// Becomes a server of `subject` until the result is dropped. Servers of one subject share its
    /// requests: each goes to exactly one of them.
    async fn serve(&self, subject: &str) -> Result<Box<dyn Requests>, BusError>;

    /// Ends this Bus for all who hold it: who asks gets [`BusError::Closed`], who waits for an answer
    /// gets an error, and servers get no more requests.
    async fn close(&self);
}

/// The requests of one server.
#[async_trait]
pub trait Requests: Send {
    /// The next request; none when the Bus is closed. Dropping the future loses no request.
    async fn next(&mut self) -> Option<Request>;
}
