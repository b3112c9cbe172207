//! What programs may ask of the kernel: the seccomp filters that `build.rs` compiles of `seccomp/*.json`.
//!
//! A filter belongs to a tier, which the host chose for this guest, and to a profile: the language of a
//! program, or a command. It is installed last before a program is executed, and everything that the program
//! starts has it. Interpreters that wait for a program are started with it, long before there is a program.
//!
//! A call that is not allowed gives EPERM. A call by another architecture's numbers ends the process.

mod filter;
mod probe;
#[cfg(test)]
mod tests;
mod verify;

pub(crate) use filter::Filter;
pub(crate) use probe::answer as probe;
pub(crate) use verify::{PROBE, verify};
