//! Which parts of a snapshot's memory its clones touch first, kept beside the memory file.
//!
//! The clones of one snapshot begin with the same work, so what the first of them missed, the next is given before
//! it asks. The record is a hint, and not part of what is signed: it names places only. Their content is checked
//! like everything that is handed out, a place that is not in the file is refused with the record, and a record that
//! somebody has written costs at most [`MAX_BLOCKS`] blocks of memory that were not needed.

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Version of the layout; a record of another version is none.
const VERSION: u32 = 1;
/// What is handed out at once, in bytes: as much as the kernel maps around a fault in a file. Source: Linux,
/// `mm/memory.c`, `fault_around_bytes`.
pub(super) const BLOCK_BYTES: u64 = 64 << 10;
/// Blocks in a record: 64 MiB.
pub(super) const MAX_BLOCKS: usize = 1024;
/// Longest record that is read, in bytes: as many numbers of as many digits as a file of 1 TiB needs, and some.
const MAX_BYTES: u64 = 16 * MAX_BLOCKS as u64;

/// A memory file, to tell it from one that has taken its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Of {
    inode: u64,
    size: u64,
    modified_s: i64,
    modified_ns: i64,
}

impl Of {
    fn new(memory: &Metadata) -> Of {
        Of {
            inode: memory.ino(),
            size: memory.len(),
            modified_s: memory.mtime(),
            modified_ns: memory.mtime_nsec(),
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    version: u32,
    memory: Of,
    block_bytes: u64,
    settled: bool,
    /// Numbers of blocks of the file, from 0, in the order in which they were missed.
    blocks: Vec<u64>,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// Numbers of blocks, in the order in which they were missed.
    pub(super) blocks: Vec<u64>,
    /// Whether the clone that missed them had done its first work; else it ended before, and there may be more.
    pub(super) settled: bool,
}

/// The place of a record.
#[derive(Debug)]
pub(super) struct WorkingSet {
    path: PathBuf,
    of: Of,
}

impl WorkingSet {
    /// That of this memory file.
    pub(super) fn of(memory: &Path) -> io::Result<WorkingSet> {
        Ok(WorkingSet {
            path: memory.with_extension("set"),
            of: Of::new(&fs::metadata(memory)?),
        })
    }

    /// The blocks, if they are known. What is there but cannot be used is an error, and as good as nothing.
    pub(super) fn read(&self) -> io::Result<Option<Known>> {
        let file = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let mut bytes = Vec::new();
        file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(io::Error::other("it is too long"));
        }
        let record: Record = serde_json::from_slice(&bytes)?;
        let blocks = self.of.size.div_ceil(BLOCK_BYTES);
        if record.version != VERSION || record.block_bytes != BLOCK_BYTES {
            return Err(io::Error::other("it is of another version"));
        }
        if record.memory != self.of {
            return Err(io::Error::other("it is of another memory file"));
        }
        if record.blocks.len() > MAX_BLOCKS || record.blocks.iter().any(|block| *block >= blocks) {
            return Err(io::Error::other("it names what is not in the file"));
        }
        Ok(Some(Known {
            blocks: record.blocks,
            settled: record.settled,
        }))
    }

    /// Keeps the blocks. `by` tells apart several that do so at once: the last one counts.
    pub(super) fn write(&self, known: &Known, by: &str) -> io::Result<()> {
        let record = Record {
            version: VERSION,
            memory: self.of.clone(),
            block_bytes: BLOCK_BYTES,
            settled: known.settled,
            blocks: known.blocks.clone(),
        };
        let json = serde_json::to_vec(&record).map_err(io::Error::other)?;
        let aside = self.path.with_extension(format!("set-{by}"));
        let mut options = File::options();
        options.write(true).create_new(true).mode(0o600);
        let written = options
            .open(&aside)
            .and_then(|mut file| file.write_all(&json))
            .and_then(|()| fs::rename(&aside, &self.path));
        if written.is_err() {
            // The first error is told.
            let _ = fs::remove_file(&aside);
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A memory file of a MiB, and the place of its record.
    fn memory() -> (tempfile::TempDir, WorkingSet) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("memory");
        File::create(&path).unwrap().set_len(1 << 20).unwrap();
        let set = WorkingSet::of(&path).unwrap();
        (folder, set)
    }

    fn known(blocks: &[u64]) -> Known {
        Known {
            blocks: blocks.to_vec(),
            settled: true,
        }
    }

    #[test]
    fn what_is_written_is_read_in_its_order() {
        let (folder, set) = memory();
        assert_eq!(set.read().unwrap(), None);
        set.write(&known(&[3, 1, 15]), "one").unwrap();
        set.write(&known(&[4, 0]), "two").unwrap();
        assert_eq!(set.read().unwrap(), Some(known(&[4, 0])));
        let left = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(left, 2, "the memory and one record");
    }

    #[test]
    fn a_record_of_another_file_or_of_places_beyond_it_is_refused() {
        let (folder, set) = memory();
        set.write(&known(&[16]), "one").unwrap();
        let error = set.read().unwrap_err().to_string();
        assert_eq!(error, "it names what is not in the file");
        set.write(&known(&[0; MAX_BLOCKS + 1]), "one").unwrap();
        set.read().unwrap_err();
        set.write(&known(&[1]), "one").unwrap();
        let memory = folder.path().join("memory");
        fs::remove_file(&memory).unwrap();
        File::create(&memory).unwrap().set_len(2 << 20).unwrap();
        let error = WorkingSet::of(&memory).unwrap().read().unwrap_err();
        assert_eq!(error.to_string(), "it is of another memory file");
    }

    #[test]
    fn what_is_no_record_or_too_long_is_refused() {
        let (folder, set) = memory();
        let path = folder.path().join("memory.set");
        for content in [Vec::new(), b"{}".to_vec(), vec![b' '; 1 << 20]] {
            fs::write(&path, content).unwrap();
            set.read().unwrap_err();
        }
    }
}
