//! The lane: from nothing to a verified host, and back.
//!
//! ```text
//!   up    journal ─▶ create ─▶ reach ─▶ prepare ─▶ sync ─▶ deploy ─▶ verify
//!   down  journal ─▶ retire
//! ```
//!
//! What comes next is decided by [`firelane_model::lane`], from a [`journal`] that is written before
//! each side effect; machines come from a [`Provider`](firelane_cloud::Provider), and what is done on
//! them goes through [`access`]. A [`crew`] has all of these. So a lane that was killed at any point
//! goes on, or is given back, by any later call.
//!
//! | Module | Holds |
//! | --- | --- |
//! | [`up`], [`down`], [`list`] | one file for each verb |
//! | [`steps`] | one file for each step |
//! | [`journal`] | what becomes of each lane, on the disk |
//! | [`identity`] | keys |
//! | [`cloudinit`] | what prepares a machine |
//! | [`install`] | what is installed |
//! | [`access`], [`ssh`] | the way in |
//! | [`progress`] | what is told |
//! | [`crew`] | all that acts, and how long it may take |

pub mod access;
pub mod cloudinit;
pub mod crew;
pub mod down;
pub mod identity;
pub mod install;
pub mod journal;
pub mod list;
pub mod progress;
pub mod ssh;
pub mod steps;
pub mod up;
