//! Firecracker for one microVM: command line, jail, bounds.

mod jail;
mod program;

pub use jail::{API_SOCKET, OPEN_FILES, Origin, Plan, STDERR_FD, VSOCK};
pub use program::{PROGRAM, default_program, named};
