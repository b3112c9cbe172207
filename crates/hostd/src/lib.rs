//! `firelane-hostd`: the only root process of a host.
//!
//! It starts VMMs in their jails for clients that may not, and ends them. It has no network, reads nothing
//! that a guest sent, and opens no file that a client names: clients send descriptors. What it can be
//! asked for is in `firelane_host_proto`.
//!
//! ```text
//!   main ── waits for SIGTERM
//!   listener ── one thread for each connection ── requests, one after the other
//!   spawner ── starts processes: a process is told of the end of the thread that started it
//!   one thread for each VMM ── collects it, removes what it had
//! ```
//!
//! Each microVM is in one of these states; what it has on the host is on record before it is made:
//!
//! ```text
//!   starting ── controls read ──> running ── collected, removed ──> ended ── stop, or end of the lease ──> forgotten
//!       └── refused: removed
//! ```
//!
//! If hostd is killed, the keepers of its VMMs kill them, and the next start removes what they had: VMMs are
//! not adopted.

mod audit;
pub mod config;
mod connection;
mod given;
mod places;
mod refuse;
mod serve;
mod spawner;
mod start;
mod state;
mod stop;
mod table;

pub use serve::{ServeError, Server};
