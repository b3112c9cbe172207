//! The protocol of `firelane-hostd`, and the side that asks.
//!
//! ```text
//!   client                                    hostd
//!     │ ── hello {2..2} ───────────────────────> │  who is it? (SO_PEERCRED)
//!     │ <── welcome {2}, or refused ──────────── │
//!     │ ── start {shape, vmm}, descriptors ────> │  jail, cgroups, user; VMM; controls read from /proc
//!     │ <── started {pid}, a socket ──────────── │
//!     │ ── confirm ────────────────────────────> │  every control is in force, or the VMM is ended
//!     │ ── stop ───────────────────────────────> │  killed, collected, everything removed
//!     │ <── stopped {how it ended} ───────────── │
//! ```
//!
//! A connection is a lease: with its end, the microVMs that were started over it end. Requests are
//! answered one after the other. What a VMM is started with is made by hostd of typed fields; no path, no
//! argument and no user comes from a client. Files, and the folder in which a VMM makes its sockets, come as
//! descriptors that the client has opened, so that hostd opens nothing that the client could not.
//!
//! - [`message`]: requests, answers, refusals.
//! - [`frame`]: how they go over the socket.
//! - [`client`]: the side that asks.

pub mod client;
pub mod frame;
pub mod message;

pub use client::{CallError, Client};

/// The only version that is spoken: 2, since Firecracker can be started.
pub const VERSION: u32 = 2;
/// Where hostd listens, unless it is told otherwise.
pub const SOCKET: &str = "/run/firelane/hostd.sock";
