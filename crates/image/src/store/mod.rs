//! The store: content-addressed files on this host, and the manifests that give them meaning.
//!
//! ```text
//! blobs/<blake3>           root file systems, kernels, module archives; mode 0444
//! templates/<name>.json    manifests
//! kernels/<source>.json    the kernels that templates share; of the small one, the name has its recipe
//! initrds/<blake3>.cpio    runner + tier + modules, joined on first use; a cache
//! snapshots/<key>/         memory and state of a warmed guest, and their seal; made on first use, a cache
//! seals/<blake3>           seals of the manifests with that content
//! signing/                 keys, and what was seen and verified: the `signing` module
//! quarantine/              snapshots that were refused
//! cache/                   downloads, kept between builds
//! locks/                   lock files
//! staging/                 half-made things, swept
//! ```
//!
//! A file enters `blobs` or `templates` by rename, complete and flushed; nothing there is ever rewritten.

mod blobs;
mod export;
pub(crate) mod lock;
pub(crate) mod manifest;
mod quarantine;
mod snapshots;
pub(crate) mod staging;
mod template;
mod templates;
#[cfg(test)]
mod tests;

pub use blobs::Verification;
pub use export::ExportError;
pub(crate) use manifest::is_usual;
pub use quarantine::Quarantined;
pub use snapshots::{Found, Memory, Snapshot, SnapshotDraft, SnapshotOrigin};
pub use template::Template;
pub(crate) use templates::KernelFiles;
pub use templates::{Store, StoreError};
