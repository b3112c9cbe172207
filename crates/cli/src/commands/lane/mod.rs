//! The lane's commands, one file each, and what they share.
//!
//! | File | Command |
//! | --- | --- |
//! | `up.rs`, `down.rs`, `list.rs`, `reap.rs`, `ssh.rs`, `logs.rs`, `verify.rs`, `preflight.rs` | that of its name |
//! | `place.rs` | where lanes are kept, and which provider is meant |
//! | `stages.rs` | what a person sees while a lane is at work |

mod down;
mod list;
mod logs;
mod place;
mod preflight;
mod reap;
mod ssh;
mod stages;
mod up;
mod verify;

pub(super) use down::down;
pub(super) use list::list;
pub(super) use logs::logs;
pub(super) use preflight::preflight;
pub(super) use reap::reap;
pub(super) use ssh::ssh;
pub(super) use up::up;
pub(super) use verify::verify;

/// Exit code when something failed, and nothing is left.
const FAILED: u8 = 1;
/// Exit code when something is left that may cost money.
const LEFT: u8 = 3;
