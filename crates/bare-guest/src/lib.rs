//! A guest without a kernel: the session protocol on bare hardware.
//!
//! It boots in milliseconds, so it shows what a host can do (KVM, a VMM, snapshots, vsock) where an
//! ordinary guest would take long or not boot at all, and it is what the tests of drivers boot.
//!
//! ```text
//!   bytes of the vsock device ──> vsock::Host ──> session::Session ──> programs
//!                             <──   credit   <──      frames      <──
//! ```
//!
//! This library is the part without hardware: it takes bytes and gives bytes, and never panics on
//! what it is given. The program (`src/machine`, feature `machine`) is the rest: entry, page tables,
//! virtio, clock. Everything is bounded; see [`vsock::MAX_CONNECTIONS`] and [`session`].

#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod bootparams;
pub mod guest;
pub mod session;
pub mod vsock;
