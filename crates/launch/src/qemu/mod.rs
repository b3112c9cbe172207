//! QEMU for one microVM: command line, jail, bounds.

mod args;
mod jail;
mod program;

pub use args::{
    CONSOLE_FD, LINK_FD, OPENS_FD, Origin, QMP_FD, TAP_FD, TB_SIZE_MIB, arguments, escape,
};
pub use jail::Plan;
pub use program::{PROGRAM, default_program};
