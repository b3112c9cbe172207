//! The gateway over HTTP, between a coordinator and an agent that only say what a test needs.

mod agent;
mod coordinator;
mod execs;
mod fake;
mod pipes;
mod sandboxes;
