//! Files that were hashed since the host's boot, and what was found: while a file is the same, it is not read again.
//!
//! A file is the same while its device, inode, size, time of change and time of status change are, and whether fs-verity
//! guards it. No program can set the time of status change (ctime) but by changing the clock, and nobody who is not root can
//! do that; a change of the disk from outside needs another boot, whose id is another. See `docs/signing.md` for what is left.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;

use jiff::{SignedDuration, Timestamp};
use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
use serde::{Deserialize, Serialize};

use super::epochs::trim;
use super::key::private_folder;
use crate::file::{FileError, at, replace};

/// Files that are remembered; the one remembered longest ago is forgotten first.
const KEPT: usize = 1024;
/// A change within the same tick of the kernel's clock as an earlier one leaves the same times: what changed as lately as
/// this is hashed again. The coarsest tick is 10 ms (`CONFIG_HZ_100`).
const SETTLED: SignedDuration = SignedDuration::from_millis(40);
/// What is remembered of a file of which a range did not verify: all of it is verified before it is used again.
pub(super) const SUSPECT: &str = "suspect";

/// What a file was when it was hashed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    pub(super) size: u64,
    modified_ns: i128,
    changed_ns: i128,
    /// Whether fs-verity guards it: then its content cannot change at all.
    verity: bool,
}

impl Stamp {
    /// As the path is now; links are followed, as the VMM follows them.
    pub(crate) fn of(path: &Path) -> io::Result<Stamp> {
        Ok(Stamp::new(&fs::metadata(path)?, is_verity(CWD, path)))
    }

    /// Of a file that is open, whatever its path leads to by now.
    pub(super) fn of_open(file: &File) -> io::Result<Stamp> {
        Ok(Stamp::new(&file.metadata()?, is_verity(file, "")))
    }

    fn new(meta: &Metadata, verity: bool) -> Stamp {
        let ns = |seconds: i64, nanos: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
        Stamp {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.len(),
            modified_ns: ns(meta.mtime(), meta.mtime_nsec()),
            changed_ns: ns(meta.ctime(), meta.ctime_nsec()),
            verity,
        }
    }

    /// Whether what changes from `now` on changes the stamp as well.
    pub(super) fn is_settled(&self, now: Timestamp) -> bool {
        self.changed_ns + SETTLED.as_nanos() <= now.as_nanosecond()
    }
}

/// A file as it was when somebody began to hash it, and when that was. The time is taken before anything is read: a change in
/// the tick of an earlier one, while the file is hashed, leaves its stamp as it was, and is older than the end of the hashing.
#[derive(Debug, Clone)]
pub(super) struct Begun {
    pub(super) stamp: Stamp,
    pub(super) at: Timestamp,
}

impl Begun {
    pub(super) fn of(path: &Path) -> io::Result<Begun> {
        let at = Timestamp::now();
        let stamp = Stamp::of(path)?;
        Ok(Begun { stamp, at })
    }

    /// The same of a file that has just been written: waits a moment, so that what is found in it can be remembered.
    pub(super) fn of_written(path: &Path) -> io::Result<Begun> {
        let begun = Begun::of(path)?;
        if begun.stamp.is_settled(begun.at) {
            return Ok(begun);
        }
        // Not longer, whatever time the file has.
        thread::sleep(SETTLED.unsigned_abs());
        Begun::of(path)
    }
}

/// Source: statx(2), `STATX_ATTR_VERITY`. A file system that cannot tell has none.
fn is_verity(at: impl AsFd, path: impl rustix::path::Arg) -> bool {
    let found = statx(at, path, AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS);
    found.is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::VERITY))
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    boot: String,
    found: String,
    stamp: Stamp,
}

/// A folder with a record for each file.
#[derive(Debug, Clone)]
pub(super) struct Remembered {
    folder: PathBuf,
    boot: String,
}

impl Remembered {
    pub(super) fn open(folder: &Path) -> Result<Remembered, FileError> {
        if !folder.is_dir() {
            private_folder(folder)?;
        }
        // Source: Documentation/admin-guide/sysctl/kernel.rst, "random": another each time that the kernel starts.
        let path = Path::new("/proc/sys/kernel/random/boot_id");
        let boot = fs::read_to_string(path).map_err(at("read", path))?;
        Ok(Remembered {
            folder: folder.to_owned(),
            boot: boot.trim().to_owned(),
        })
    }

    /// What was found in the file, if it is still the same. A record that cannot be read is none.
    pub(super) fn found(&self, stamp: &Stamp) -> Option<String> {
        let record = fs::read(self.path(stamp)).ok()?;
        let record: Record = serde_json::from_slice(&record).ok()?;
        (record.boot == self.boot && record.stamp == *stamp).then_some(record.found)
    }

    /// Remembers what was found in a file that was this before and after it was hashed, which began at `begun` or later.
    pub(super) fn remember(
        &self,
        stamp: &Stamp,
        found: &str,
        begun: Timestamp,
    ) -> Result<(), FileError> {
        if !stamp.is_settled(begun) {
            return Ok(());
        }
        let record = Record {
            boot: self.boot.clone(),
            found: found.to_owned(),
            stamp: stamp.clone(),
        };
        let json = serde_json::to_vec(&record).expect("strings and numbers always serialise");
        let path = self.path(stamp);
        let is_new = !path.exists();
        replace(&path, &json, 0o600)?;
        if is_new {
            trim(&self.folder, KEPT)?;
        }
        Ok(())
    }

    fn path(&self, stamp: &Stamp) -> PathBuf {
        self.folder
            .join(format!("{:x}-{:x}", stamp.device, stamp.inode))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_have_changed_while_it_was_hashed_is_not_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let remembered = Remembered::open(&folder.path().join("hashed")).unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "one").unwrap();
        let stamp = Stamp::of(&file).unwrap();
        let changed = Timestamp::from_nanosecond(stamp.changed_ns).unwrap();
        // Begun in the tick of the change: another one may have followed in it, however long the hashing took.
        let begun = changed + SignedDuration::from_millis(1);
        remembered.remember(&stamp, "blake3 1", begun).unwrap();
        assert_eq!(remembered.found(&stamp), None);
        let begun = changed + SETTLED;
        remembered.remember(&stamp, "blake3 1", begun).unwrap();
        assert_eq!(remembered.found(&stamp).as_deref(), Some("blake3 1"));
    }

    #[test]
    fn the_time_is_taken_before_the_file_is_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        let before = Timestamp::now();
        fs::write(&file, "one").unwrap();
        let begun = Begun::of_written(&file).unwrap();
        assert!(begun.at > before && begun.at <= Timestamp::now());
        assert!(begun.stamp.is_settled(begun.at));
    }
}
