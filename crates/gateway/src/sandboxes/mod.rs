//! `/v1/sandboxes` and `/v1/snapshots`: one file for each thing that can be done.
//!
//! The coordinator knows sandboxes and snapshots. Programs and files of a sandbox are its agent's:
//! the coordinator tells the host, and the agent there is asked.

pub(crate) mod change;
pub(crate) mod create;
pub(crate) mod execs;
pub(crate) mod files;
pub(crate) mod fork;
pub(crate) mod get;
pub(crate) mod list;
mod place;
pub(crate) mod snapshots;
pub(crate) mod verbs;
