//! The root file system as a folder of files: unpacked, completed, and made into an image.

pub(crate) mod bytecode;
pub(crate) mod erofs;
pub(crate) mod fixups;
pub(crate) mod paths;
pub(crate) mod unpack;
