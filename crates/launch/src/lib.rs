//! What a microVM is on the host, whoever starts it: `firelane` itself or `firelane-hostd`.
//!
//! - [`machine`]: its shape, and which files it sees.
//! - [`place`]: what there is of it on the host when its VMM is started.
//! - [`firecracker`]: Firecracker's command line, its jail and its bounds.
//! - [`qemu`]: QEMU's command line, its jail and its bounds, made of the shape.
//! - [`rundir`]: what a microVM owns, on record, and the sweep.
//!
//! Nothing here starts a process or talks to one.

pub mod firecracker;
pub mod machine;
pub mod place;
pub mod qemu;
pub mod rundir;
