//! Guests with a network, from the command and from a service to a real server, with QEMU. The host is a namespace
//! of the test's own, with a server in another one behind it.

#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]

mod runs;
mod service;
mod world;
