//! Hashes of a large file's ranges, so that one range can be checked without the others, and holes cost nothing.
//!
//! The tree has two levels. A leaf is the BLAKE3 hash of one range: [`RANGE_BYTES`] of the file, the last range may be
//! shorter. The root is BLAKE3 in its mode for deriving keys, with the context below, over the file's size (u64), the size of
//! a range (u32), both little-endian, and all leaves in order. The leaves are in a file of their own, 32 bytes each; the root is
//! in the seal. Source of the hash: the BLAKE3 paper (2020), section 2.3, "Modes".

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;

use rustix::fs::{SeekFrom, seek};

use super::Refusal;
use crate::digest::hex;
use crate::file::{FileError, at};

/// Size of a range in bytes: 128 KiB of leaves for each GiB, and a range is hashed in a tenth of a millisecond.
pub const RANGE_BYTES: u32 = 256 * 1024;
/// Of the hash that is the root.
const CONTEXT: &str = "Firelane 2026-11 root of the hashes of a file's ranges";
/// Threads that hash one file; more wait for memory.
const MAX_THREADS: usize = 8;

pub(super) type Leaf = [u8; 32];

/// The hashes of one file's ranges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tree {
    size: u64,
    leaves: Vec<Leaf>,
}

impl Tree {
    /// Hashes a file.
    pub(super) fn of(file: &Path, size: u64) -> io::Result<Tree> {
        let mut leaves = vec![[0; 32]; count(size)];
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let part = leaves.len().div_ceil(threads.clamp(1, MAX_THREADS)).max(1);
        thread::scope(|scope| {
            let parts = leaves.chunks_mut(part).enumerate();
            let workers: Vec<_> = parts
                .map(|(index, part_of_leaves)| {
                    scope.spawn(move || hash(file, size, index * part, part_of_leaves))
                })
                .collect();
            workers
                .into_iter()
                .try_for_each(|worker| worker.join().expect("hashing does not panic"))
        })?;
        Ok(Tree { size, leaves })
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn leaves(&self) -> &[Leaf] {
        &self.leaves
    }

    /// What is in the file of leaves.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        self.leaves.concat()
    }

    /// Reads the leaves of a file of that size. Nothing, if there are more or fewer.
    pub(super) fn from_bytes(bytes: &[u8], size: u64) -> Option<Tree> {
        let (leaves, rest) = bytes.as_chunks::<32>();
        let fits = rest.is_empty() && leaves.len() == count(size);
        fits.then(|| Tree {
            size,
            leaves: leaves.to_vec(),
        })
    }

    /// What the seal has, in hex.
    pub(super) fn root(&self) -> String {
        let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
        hasher.update(&self.size.to_le_bytes());
        hasher.update(&RANGE_BYTES.to_le_bytes());
        for leaf in &self.leaves {
            hasher.update(leaf);
        }
        hex(&hasher.finalize())
    }

    /// Where the first range begins that another tree has otherwise.
    pub(super) fn first_difference(&self, other: &Tree) -> Option<u64> {
        let mut pairs = self.leaves.iter().zip(&other.leaves);
        let index = pairs.position(|(one, two)| one != two)?;
        Some(index as u64 * u64::from(RANGE_BYTES))
    }
}

/// The leaves in a file, if they have this root.
pub(super) fn read_tree(name: &str, leaves: &Path, size: u64, root: &str) -> Result<Tree, Refusal> {
    let changed = || Refusal::Changed {
        file: format!("the list of hashes of {name}"),
        offset: None,
    };
    let wanted = count(size) as u64 * 32;
    let found = match fs::metadata(leaves) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Refusal::Missing {
                file: format!("the list of hashes of {name}"),
            });
        }
        meta => meta.map_err(at("read", leaves))?.len(),
    };
    if found != wanted {
        return Err(Refusal::Size {
            file: format!("the list of hashes of {name}"),
            sealed: wanted,
            found,
        });
    }
    let bytes = fs::read(leaves).map_err(at("read", leaves))?;
    Tree::from_bytes(&bytes, size)
        .filter(|tree| tree.root() == root)
        .ok_or_else(changed)
}

/// Writes the leaves of a file beside it.
pub(super) fn write_tree(tree: &Tree, path: &Path) -> Result<(), FileError> {
    crate::file::put(path, &tree.to_bytes(), 0o644)?;
    crate::file::sync(path)
}

pub(super) fn count(size: u64) -> usize {
    usize::try_from(size.div_ceil(u64::from(RANGE_BYTES))).expect("no file has so many ranges")
}

pub(super) fn range_len(size: u64, start: u64) -> usize {
    // Not longer than a range, which fits.
    (size - start).min(u64::from(RANGE_BYTES)) as usize
}

/// Hashes the ranges from `first` on.
fn hash(path: &Path, size: u64, first: usize, leaves: &mut [Leaf]) -> io::Result<()> {
    let file = File::open(path)?;
    let mut buffer = vec![0; RANGE_BYTES as usize];
    let zeros = *blake3::hash(&buffer).as_bytes();
    // Where the next byte is that is not in a hole, as far as that is known.
    let mut data_at = 0;
    for (index, leaf) in leaves.iter_mut().enumerate() {
        let start = (first + index) as u64 * u64::from(RANGE_BYTES);
        let len = range_len(size, start);
        if data_at <= start {
            data_at = next_data(&file, start)?;
        }
        let is_hole = len == buffer.len() && data_at >= start + len as u64;
        *leaf = if is_hole {
            zeros
        } else {
            file.read_exact_at(&mut buffer[..len], start)?;
            *blake3::hash(&buffer[..len]).as_bytes()
        };
    }
    Ok(())
}

/// Where the next data begins; `start` itself where the file system cannot tell.
pub(super) fn next_data(file: &File, start: u64) -> io::Result<u64> {
    match seek(file, SeekFrom::Data(start)) {
        Ok(at) => Ok(at),
        // Source: lseek(2): ENXIO, there is no more data.
        Err(rustix::io::Errno::NXIO) => Ok(u64::MAX),
        Err(rustix::io::Errno::INVAL) => Ok(start),
        Err(error) => Err(error.into()),
    }
}
