//! What host and guest say to each other, as bytes.
//!
//! Everything here is sans-I/O: decoders are fed bytes and hand out frames, encoders append to a
//! buffer. Both sides use the same code, and it builds without `std`. The byte layouts are
//! specified in `docs/protocol.md`; constants there and here are the same.
//!
//! ```text
//!   port 5001: session   frames, many execs      port 5000: original   length + JSON
//!        └──────────────┬─────────────────────────────┘
//!   connections, host to guest: CONNECT <port> / OK <n>         (handshake)
//!        ├── virtio-vsock, where the VMM has it
//!        └── link: connections multiplexed over one virtio-serial port
//! ```
//!
//! The guest is hostile: a decoder never allocates more than the cap of the frame kind that the
//! header names, and a frame over its cap is an error before its payload is read.

#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod files;
pub mod frame;
pub mod handshake;
pub mod lang;
pub mod link;
pub mod message;
pub mod network;
pub mod original;
pub mod tier;

pub use lang::Lang;
pub use tier::Tier;

/// Port of the original protocol ([`original`]).
pub const ORIGINAL_PORT: u32 = 5000;
/// Port of the session protocol ([`frame`], [`message`]).
pub const SESSION_PORT: u32 = 5001;
/// Largest program source that either protocol carries, in bytes.
pub const MAX_CODE_BYTES: usize = 1 << 20;
