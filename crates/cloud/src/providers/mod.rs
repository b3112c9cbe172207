//! Those that are built in, one file or folder for each.

pub mod aws;
