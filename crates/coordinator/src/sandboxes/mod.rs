//! Sandboxes and their snapshots, as this service knows them. What they are is their host's; here is
//! the record of each, and one task for each that follows its host's word of it.
//!
//! ```text
//!   create, fork ─▶ record ─▶ the host makes it ─▶ watch ─▶ … ─▶ destroyed, on record
//!                                 └─ it cannot ─▶ destroyed: failed
//!   start of the service ─▶ every record that is live ─▶ watch
//! ```
//!
//! The record is the truth, and is written by what the host tells, never by what it tells late: each
//! word of a host has a revision, and what is gone stays gone.
//!
//! | File | Does |
//! | --- | --- |
//! | `live.rs` | what is in memory of a sandbox that is not gone |
//! | `record.rs` | what a record holds, and how a host's word becomes one |
//! | `create.rs`, `fork.rs` | new ones |
//! | `watch.rs` | follows each to its end, also over a restart |
//! | `find.rs` | reads and lists |
//! | `change.rs` | pause, resume, roll back, destroy, other terms |
//! | `snapshots.rs` | takes, lists and removes snapshots |
//! | `spans.rs` | tells of one that is gone, to a collector of traces |
//! | `reconcile.rs` | compares the records of snapshots with a host's files |

mod change;
mod create;
mod find;
mod fork;
mod live;
mod reconcile;
mod record;
mod snapshots;
mod spans;
#[cfg(test)]
mod tests;
mod watch;

pub(crate) use live::Sandboxes;
pub(crate) use record::reason_name;
