//! The gateway over HTTP, between a coordinator and an agent that only say what a test needs.

mod coordinator;
mod fake;
mod sandboxes;
