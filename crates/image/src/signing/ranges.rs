//! A file whose ranges are checked when they are first used, and once.
//!
//! ```text
//!   not checked ── read and hashed ──> checked: read as it is, while the file is what it was
//!                          │                all of them: the file as a whole is remembered
//!                          └──> does not verify: the file is suspect, and verified as a whole before it is used again
//! ```
//!
//! For a VMM that is handed its guest's memory page by page. One that maps the file itself needs all of it to be checked
//! before.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use super::Refusal;
use super::remembered::{Remembered, SUSPECT, Stamp};
use super::tree::{Leaf, RANGE_BYTES, Tree, count, next_data, range_len, read_tree};
use crate::file::at;

/// A file by ranges.
#[derive(Debug)]
pub struct Ranges {
    name: String,
    path: PathBuf,
    file: File,
    tree: Tree,
    /// What the file was when it was opened: a range that was checked is read without that only while it is the same.
    stamp: Stamp,
    remembered: Remembered,
    /// What is remembered of the file once all of it was checked.
    whole: String,
    checked: Mutex<Vec<bool>>,
    spoilt: AtomicBool,
    finishing: AtomicBool,
}

/// What is checked, and where.
pub(super) struct Sealed<'a> {
    pub(super) name: &'a str,
    pub(super) path: &'a Path,
    pub(super) leaves: &'a Path,
    pub(super) size: u64,
    pub(super) root: &'a str,
}

impl Ranges {
    /// The leaves must have the sealed root. `whole` is what is remembered of the file once all of it was checked.
    pub(super) fn open(
        sealed: &Sealed<'_>,
        remembered: &Remembered,
        whole: String,
    ) -> Result<Ranges, Refusal> {
        let Sealed {
            name,
            path,
            leaves,
            size,
            root,
        } = *sealed;
        let tree = read_tree(name, leaves, size, root)?;
        let file = File::open(path).map_err(at("read", path))?;
        let stamp = Stamp::of_open(&file).map_err(at("read", path))?;
        if stamp.size != size {
            return Err(Refusal::Size {
                file: name.to_owned(),
                sealed: size,
                found: stamp.size,
            });
        }
        Ok(Ranges {
            name: name.to_owned(),
            path: path.to_owned(),
            file,
            checked: Mutex::new(vec![false; count(size)]),
            tree,
            stamp,
            remembered: remembered.clone(),
            whole,
            spoilt: AtomicBool::new(false),
            finishing: AtomicBool::new(false),
        })
    }

    /// Reads and checks the range that has the byte at `offset`. Returns where it begins, and its content, which is what was
    /// hashed: nothing that changes in the file afterwards gets through.
    ///
    /// # Errors
    /// [`Refusal::Changed`], and [`Refusal::Size`] for an offset that is not in the file.
    pub fn read(&self, offset: u64) -> Result<(u64, Vec<u8>), Refusal> {
        let index = self.index_of(offset)?;
        Ok((start_of(index), self.check(index)?))
    }

    /// Fills `bytes` with what is at `offset`. A range is checked the first time, and again if the file has changed
    /// meanwhile.
    ///
    /// # Errors
    /// As [`Ranges::read`].
    pub fn read_at(&self, mut offset: u64, mut bytes: &mut [u8]) -> Result<(), Refusal> {
        while !bytes.is_empty() {
            let index = self.index_of(offset)?;
            let within = offset - start_of(index);
            let left = range_len(self.tree.size(), start_of(index)) as u64 - within;
            let (piece, rest) = bytes.split_at_mut(bytes.len().min(left as usize));
            let known = self.lock()[index];
            if !(known && self.read_known(offset, piece)?) {
                let content = self.check(index)?;
                let within = within as usize;
                piece.copy_from_slice(&content[within..within + piece.len()]);
            }
            offset += piece.len() as u64;
            bytes = rest;
        }
        Ok(())
    }

    /// Checks what was not checked yet. Then the file is remembered as a whole, until the host's next boot. Does nothing while
    /// another thread does this.
    ///
    /// # Errors
    /// As [`Ranges::read`].
    pub fn finish(&self) -> Result<(), Refusal> {
        if self.finishing.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let finished = self.check_rest();
        self.finishing.store(false, Ordering::Release);
        finished
    }

    fn check_rest(&self) -> Result<(), Refusal> {
        let zeros: Leaf = *blake3::hash(&[0; RANGE_BYTES as usize]).as_bytes();
        for (index, leaf) in self.tree.leaves().iter().enumerate() {
            if self.lock()[index] {
                continue;
            }
            let (start, end) = (start_of(index), start_of(index + 1));
            let begun = Timestamp::now();
            let data = next_data(&self.file, start).map_err(at("read", &self.path))?;
            if *leaf == zeros && data >= end && end <= self.tree.size() {
                // A hole: there is nothing to read.
                self.mark(index, begun)?;
            } else {
                self.check(index)?;
            }
        }
        if self.is_whole() {
            // Each range was read when the stamp was settled already.
            let now = Timestamp::now();
            self.remembered.remember(&self.stamp, &self.whole, now)?;
        }
        Ok(())
    }

    /// Whether all of it was checked, so that the file may be mapped.
    pub fn is_whole(&self) -> bool {
        self.lock().iter().all(|checked| *checked)
    }

    /// Whether something was found that did not verify.
    pub fn is_spoilt(&self) -> bool {
        self.spoilt.load(Ordering::Acquire)
    }

    /// How many ranges were checked, and how many there are.
    pub fn checked(&self) -> (usize, usize) {
        let checked = self.lock();
        let done = checked.iter().filter(|checked| **checked).count();
        (done, checked.len())
    }

    fn index_of(&self, offset: u64) -> Result<usize, Refusal> {
        let index = usize::try_from(offset / u64::from(RANGE_BYTES)).unwrap_or(usize::MAX);
        if offset < self.tree.size() && index < self.tree.leaves().len() {
            return Ok(index);
        }
        Err(Refusal::Size {
            file: self.name.clone(),
            sealed: self.tree.size(),
            found: offset,
        })
    }

    fn check(&self, index: usize) -> Result<Vec<u8>, Refusal> {
        let start = start_of(index);
        let mut content = vec![0; range_len(self.tree.size(), start)];
        let begun = Timestamp::now();
        let read = self.file.read_exact_at(&mut content, start);
        let same = read.is_ok() && blake3::hash(&content).as_bytes() == &self.tree.leaves()[index];
        if same {
            self.mark(index, begun)?;
            return Ok(content);
        }
        self.suspect()?;
        match read {
            // It was cut.
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
                Err(at("read", &self.path)(error).into())
            }
            _ => Err(Refusal::Changed {
                file: self.name.clone(),
                offset: Some(start),
            }),
        }
    }

    /// Fills `bytes` with what of a range is there that was checked before. Not, if the file has changed since.
    fn read_known(&self, offset: u64, bytes: &mut [u8]) -> Result<bool, Refusal> {
        let read = self.file.read_exact_at(bytes, offset);
        // Looked at after it was read: what changed before that is seen.
        Ok(read.is_ok() && self.is_same()?)
    }

    /// The range, which was read from `begun` on, needs not be checked again, if the file is what it was when it was opened.
    fn mark(&self, index: usize, begun: Timestamp) -> Result<(), Refusal> {
        if self.is_same()? && self.stamp.is_settled(begun) {
            self.lock()[index] = true;
        }
        Ok(())
    }

    fn is_same(&self) -> Result<bool, Refusal> {
        let now = Stamp::of_open(&self.file).map_err(at("read", &self.path))?;
        Ok(now == self.stamp)
    }

    /// Whoever uses the file next verifies all of it.
    fn suspect(&self) -> Result<(), Refusal> {
        self.spoilt.store(true, Ordering::Release);
        let stamp = Stamp::of_open(&self.file).map_err(at("read", &self.path))?;
        let now = Timestamp::now();
        Ok(self.remembered.remember(&stamp, SUSPECT, now)?)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<bool>> {
        self.checked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn start_of(index: usize) -> u64 {
    index as u64 * u64::from(RANGE_BYTES)
}
