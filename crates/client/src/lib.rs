//! Typed client of the gateway's API.
//!
//! | Module | Does |
//! | --- | --- |
//! | [`Client`] | one request, one answer, over TCP or a Unix socket |
//! | [`attach`] | a run's events and its input, over a WebSocket |

pub mod attach;
mod client;
mod target;

pub use client::{Client, ClientError, Raw};
pub use target::Target;

pub use hyper::Method;
