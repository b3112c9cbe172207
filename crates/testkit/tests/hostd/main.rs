//! firelane-hostd over its socket, with real VMMs, and with clients that do what they must not.
//!
//! It has to be root, and so do these tests: run by an ordinary user they say that they were skipped.

mod bare;
mod begun;
mod given;
mod linux;
mod refused;
mod ways;
