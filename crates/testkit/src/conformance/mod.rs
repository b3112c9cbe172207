//! What every driver has to do, as tests that each driver is put through: QEMU, Firecracker with and
//! without its jailer, and the stand-in for a Firecracker.
//!
//! ```text
//!   Subject: a driver, its guest, and that guest's words ──> cases ──> nothing is left
//! ```

mod cases;
mod forks;
mod standing;
mod subject;

pub use cases::*;
pub use forks::*;
pub use standing::*;
pub use subject::{Program, Subject, bare_command, bare_machine, linux_command, open};
