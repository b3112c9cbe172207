//! Files of a sandbox. What follows the prefix in a path is the absolute path of a file without its
//! leading slash: `/files/work/a.txt` is `/work/a.txt`.
//!
//! ```text
//!   files      the bytes of a file          PUT ── parts ──▶ pipe ─▶ agent ─▶ guest
//!   archives   a folder as a tar archive    GET ◀── parts ── pipe ◀─ agent ◀─ guest
//!   folders    a page of what is in one
//!   entries    what is at a path
//!   watch      what changes
//! ```
//!
//! A pipe is closed when its request is over, however that ends ([`pipe`]).

pub(crate) mod archives;
mod at;
mod cursor;
pub(crate) mod entries;
pub(crate) mod folders;
pub(crate) mod get;
mod incoming;
mod outgoing;
mod pipe;
pub(crate) mod put;
mod range;
mod routes;
pub(crate) mod watch;

pub(crate) use routes::routes;
