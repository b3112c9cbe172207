//! What one host does with microVMs.
//!
//! ```text
//!   template ── boot, warm, snapshot (once) ──> snapshot ── restore, renew (each run) ──> clone
//! ```
//!
//! [`snapshot::find_or_make`] finds the snapshot of a template's warmed guest, or makes it;
//! [`clone::restore`] gives a clone of it that has confirmed that it is like no other.

pub mod clone;
pub mod follow;
pub mod snapshot;
pub mod warm;
pub mod workshop;
