//! The database, from the outside.
#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]

mod audit;
mod crash;
mod ended;
mod full;
mod idempotency;
mod keys;
mod opening;
mod records;
mod run_keys;
mod runs;
mod sandboxes;
mod snapshots;
mod usage;
mod writing;
