//! The gateway over HTTP, between a coordinator and an agent that only say what a test needs.

mod agent;
mod answers;
mod broken;
mod coordinator;
mod execs;
mod fake;
mod files;
mod pages;
mod pipes;
mod repeated;
mod sandboxes;
