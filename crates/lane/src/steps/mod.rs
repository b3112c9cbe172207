//! The steps of a lane, one file each. Each can be done again, after it failed, was interrupted, or
//! was done already.

pub(crate) mod create;
pub(crate) mod deploy;
pub(crate) mod find;
pub(crate) mod prepare;
pub(crate) mod reach;
pub(crate) mod retire;
pub(crate) mod sync;
pub mod verify;

pub(crate) use reach::LOGIN;
