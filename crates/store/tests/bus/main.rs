//! Every implementation of the Bus passes one suite, [`conformance`]; and typed calls over it.

#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]

mod calls;
mod conformance;
mod local;
