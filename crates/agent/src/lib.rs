//! What one host does with microVMs.
//!
//! ```text
//!   template ── boot, warm, snapshot (once) ──> snapshot ── restore, renew ──> clone
//!                                                               │                ├──> run
//!                                                               └─ warm, stop ─> pool
//! ```
//!
//! | Module | Does |
//! | --- | --- |
//! | [`snapshot`] | finds the snapshot of a template's warmed guest, or makes it |
//! | [`clone`] | gives a clone of it that has confirmed that it is like no other |
//! | [`network`] | opens the network of a clone, and tells what happened in it |
//! | [`warm`] | has clones run a program and wait, stopped |
//! | [`workshop`] | holds what clones are made with |
//! | `standing` | has VMMs wait for the next restores |
//! | [`follow`] | passes on what a program writes, until its outcome |
//! | `run`, `sandbox` | one program in a microVM of its own; microVMs that stay for more |
//! | `templates` | templates of this host, and their builds |
//! | [`service`] | answers for this host over the Bus, and reports how it is |

pub mod building;
pub mod clone;
mod feed;
pub mod follow;
mod load;
pub mod network;
mod pools;
mod problem;
mod run;
mod sandbox;
pub mod service;
pub mod snapshot;
mod standing;
mod templates;
pub mod warm;
pub mod workshop;

pub use service::Agent;
