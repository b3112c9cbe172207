//! Templates: the kernel, the root file system and the initrd that a microVM boots from.
//!
//! A [`Definition`] says what a template holds; [`build()`] makes it from Debian packages, without root, chroot or loop
//! mounts, and the same inputs give the same bytes; a [`Store`] keeps the results, named by their content. Reading a [`Template`]
//! out of the store is quick and takes no lock.
//!
//! Synchronous throughout: external programs run as child processes with deadlines.

mod build;
mod cpio;
mod digest;
mod file;
mod initrd;
mod kernel;
mod progress;
mod recipe;
pub mod signing;
mod store;
mod tool;
mod tree;

pub use build::{BuildError, Options, build};
pub use file::FileError;
pub use kernel::{BzImageError, KernelError, KernelSource, ModuleError};
pub use progress::{Progress, Silent, Step};
pub use recipe::debian::{FetchError, Package};
pub use recipe::definition::{Definition, DefinitionError};
pub use recipe::wheel::WheelError;
pub use store::manifest::{Blob, Kernel, Manifest};
pub use store::{
    ExportError, Found, Memory, Quarantined, Snapshot, SnapshotDraft, SnapshotOrigin, Store,
    StoreError, Template, Verification,
};
pub use tool::ToolError;
pub use tree::unpack::UnpackError;
