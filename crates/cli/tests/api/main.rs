//! The service over HTTP, with a host that has no microVMs.

mod batch;
mod browser;
mod child;
mod clock;
#[path = "../../../traces/tests/collector/mod.rs"]
mod collector;
mod dashboard;
mod disk;
mod flood;
mod fuzz;
mod host;
mod keys;
mod limits;
mod log;
mod metrics;
mod restart;
mod sandboxes;
mod service;
mod sockets;
mod templates;
mod traces;
mod usage;
