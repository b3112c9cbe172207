//! The service over HTTP, with a host that has no microVMs.

mod batch;
mod browser;
mod dashboard;
mod fuzz;
mod log;
mod metrics;
mod service;
