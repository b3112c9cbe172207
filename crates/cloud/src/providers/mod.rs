//! Providers that are built in, one file or folder each.

pub(crate) mod aws;
pub(crate) mod existing;
pub(crate) mod hetzner;
pub(crate) mod local;
