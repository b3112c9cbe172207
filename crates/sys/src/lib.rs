//! The host's syscall work, and all unsafe code on the host.
//!
//! - [`jail`]: the program a VMM is started through: gives up rights, then becomes the VMM.
//! - [`cgroup`]: bounds on a VMM from outside, cgroup v2 or v1.
//! - [`inherited`]: descriptors passed on by number.
//! - [`network`]: network namespaces, and taps in them.
//! - [`process`]: processes that may be gone and their number reused.
//! - [`kvm`]: whether this host's KVM answers.
//! - [`tsc`]: the rate of the time-stamp counter.
//! - [`userfault`]: page faults that another process answers.

pub mod cgroup;
pub mod inherited;
pub mod jail;
pub mod kvm;
pub mod network;
pub mod process;
pub mod tsc;
pub mod userfault;
