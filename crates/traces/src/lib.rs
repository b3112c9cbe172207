//! Spans of what is over, to a collector of OpenTelemetry, over OTLP/HTTP.
//!
//! ```text
//!   Sink::tell ─▶ queue (bounded) ─▶ batch ─▶ POST /v1/traces
//!        └─ full: dropped, counted        └─ failed: dropped, counted
//! ```
//!
//! Who tells of something never waits, and never learns whether a collector is there. Nothing is made
//! into a span here, and there is no tracing of functions: what happened is told once, when it is over.
//!
//! The encoding, the HTTP client and the retries are those of `opentelemetry-otlp`. The queue is our
//! own rather than the SDK's batch processor: that one does not tell what it drops, runs on a thread
//! without a runtime, and ends when the exporter pleases.
//!
//! Source: OpenTelemetry Protocol specification, "OTLP/HTTP"; OpenTelemetry specification,
//! "OpenTelemetry Protocol Exporter", for the names of what is set in the environment.
//!
//! | Module | Does |
//! | --- | --- |
//! | `span` | what is told |
//! | `endpoint` | where it goes |
//! | `sink` | takes it, and counts |
//! | `export` | sends it |

mod endpoint;
mod export;
mod sink;
mod span;

pub use endpoint::{Endpoint, EndpointError};
pub use export::{Exporter, Limits, StartError};
pub use sink::Sink;
pub use span::{Parent, Span, Value, fresh_id, root_of};
