//! Lanes on clouds and machines that are made up: the whole way, every fault at every call, and
//! what users do wrong.

#![expect(
    clippy::unwrap_used,
    reason = "a test ends where its setting cannot be made"
)]

mod faults;
mod setting;
mod trouble;
mod whole;
