//! Runs one microVM.
//!
//! ```text
//!   Driver::boot(Machine) ──> MicroVm ── pause / resume ──> destroy
//!                                │ Unix socket, CONNECT <port>
//!                            Session ── exec, put, get
//! ```
//!
//! - [`driver`]: the traits that every kind of VMM implements.
//! - [`firecracker`]: Firecracker, where KVM is usable.
//! - [`qemu`]: QEMU, by KVM where guests run on it, else by software emulation.
//! - [`connect`], [`session`]: the host's side of the guest protocol.
//! - [`memory`]: guest memory that is checked while it is handed out.
//! - [`rundir`]: what a microVM owns on the host, and the sweep of what a killed owner left.
//! - [`trial`]: whether guests really run by a driver on this host.
//! - [`timeline`]: when each phase was reached.
//!
//! The guest is hostile: nothing it sends is trusted beyond its frame, and whatever it does, its
//! process, files, sockets and cgroups are gone after [`driver::MicroVm::destroy`].

mod child;
pub mod connect;
pub mod driver;
pub mod firecracker;
mod host;
pub mod memory;
mod owned;
pub mod qemu;
pub mod rundir;
pub mod session;
pub mod tail;
pub mod timeline;
pub mod trial;
