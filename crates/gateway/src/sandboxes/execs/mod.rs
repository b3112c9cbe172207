//! `/v1/sandboxes/{id}/execs`: programs in a sandbox.

pub(crate) mod feed;
pub(crate) mod look;
pub(crate) mod start;
pub(crate) mod stream;
