//! Harness for tests that run the real command and real microVMs.
//!
//! A [`Lab`] is one test's corner of the host: its own run directory and scratch folder, the
//! shared store of templates. Whole commands go in; stdout, stderr and exit code come out.
//!
//! The programs are those of `cargo xtask build --debug`, or of the folder in `FIRELANE_BIN_DIR`; the store is
//! `FIRELANE_HOME`, or the one that `make test` fills.

pub mod booted;
pub mod clouds;
mod command;
pub mod conformance;
pub mod cutting;
mod disk;
pub mod hostd;
mod lab;
pub mod lane;
pub mod service;

pub use command::{Ended, Running};
pub use disk::SmallDisk;
pub use lab::{Lab, MicroVm, processes_of};
