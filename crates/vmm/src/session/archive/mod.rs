//! Folders as tar archives, both ways: POSIX.1-2017, "pax Interchange Format", and what GNU tar adds
//! for long names.
//!
//! An archive is put together and taken apart here, of the same requests that a single file takes,
//! so a guest neither sends an archive nor reads one: what is written names nothing outside of its
//! folder, whatever the guest says, and what is read has been checked entry by entry.
//!
//! ```text
//!   unpack   archive ── reader ── plan (checked) ── requests, IN_FLIGHT at once ──▶ guest
//!   pack     guest ── pages, files ahead of their turn ── header ──▶ archive
//! ```
//!
//! Unpacking is not atomic as a whole; each file is. Entries are written in the order of the archive,
//! a later one in place of an earlier one. The first that is refused, by us or by the guest, ends the
//! work: the error names it and tells how many entries were written; none after them is left but
//! those that were under way with it, which are counted. Owners and times of an archive are not kept.

mod header;
mod pack;
mod plan;
mod reader;
mod unpack;

use firelane_guest_proto::message::MAX_FILE_BYTES;

pub use pack::{PackError, Packed};
pub use plan::EntryProblem;
pub use unpack::{UnpackError, Unpacked};

/// Bytes of a block; an archive is made of them.
const BLOCK: usize = 512;
/// Characters of an entry's name that an error shows.
const MAX_SHOWN: usize = 200;

/// Bounds on one archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArchiveLimits {
    /// Files, folders and links.
    pub entries: u64,
    /// Bytes of all files together.
    pub bytes: u64,
    /// Bytes of one file; the protocol's own cap counts in any case.
    pub file_bytes: u64,
}

impl Default for ArchiveLimits {
    fn default() -> ArchiveLimits {
        ArchiveLimits {
            entries: 100_000,
            bytes: 4 * MAX_FILE_BYTES,
            file_bytes: MAX_FILE_BYTES,
        }
    }
}

/// What has been taken of the bounds.
#[derive(Default)]
struct Taken {
    entries: u64,
    bytes: u64,
}

impl Taken {
    /// One entry more, with a file of so many bytes.
    fn take(&mut self, bytes: u64, limits: &ArchiveLimits) -> Result<(), EntryProblem> {
        self.entries += 1;
        let file_cap = limits.file_bytes.min(MAX_FILE_BYTES);
        if self.entries > limits.entries {
            return Err(EntryProblem::TooMany {
                cap: limits.entries,
            });
        }
        if bytes > file_cap {
            return Err(EntryProblem::TooLarge {
                bytes,
                cap: file_cap,
            });
        }
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > limits.bytes {
            return Err(EntryProblem::Total { cap: limits.bytes });
        }
        Ok(())
    }
}

/// A name as errors show it.
fn shown(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(name);
    text.escape_debug().take(MAX_SHOWN).collect()
}

/// The path of an entry below `folder`.
fn in_folder(folder: &str, path: &str) -> String {
    format!("{}/{path}", folder.trim_end_matches('/'))
}
