//! The host's syscall work, and all unsafe code on the host.
//!
//! - [`jail`]: the program a VMM is started through: gives up rights, then becomes the VMM.
//! - [`cgroup`]: bounds on a VMM from outside, cgroup v2 or v1.
//! - [`inherited`]: descriptors passed on by number.
//! - [`network`]: network namespaces, and taps in them.
//! - [`peer`]: who is at the other end of a Unix socket.
//! - [`process`]: processes that may be gone and their number reused.
//! - [`kvm`]: whether this host's KVM answers.
//! - [`signals`]: those that ask a program to end.
//! - [`tsc`]: the rate of the time-stamp counter.
//! - [`userfault`]: page faults that another process answers.
//! - [`users`]: those that VMMs run as.

pub mod cgroup;
pub mod inherited;
pub mod jail;
pub mod kvm;
pub mod network;
pub mod peer;
pub mod process;
pub mod signals;
pub mod tsc;
pub mod userfault;
pub mod users;
