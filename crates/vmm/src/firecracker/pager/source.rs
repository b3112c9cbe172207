//! Where the pages come from: the snapshot's memory file, checked or as it is.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::PagerError;
use crate::driver::SnapshotFiles;
use crate::memory::CheckedMemory;

pub(super) enum Source {
    /// Each range is checked before its bytes are handed out.
    Checked(Arc<dyn CheckedMemory>),
    /// Whoever gave the file has checked it, or trusts it.
    Plain(File),
}

impl Source {
    pub(super) fn open(files: &SnapshotFiles) -> io::Result<Source> {
        match &files.checked {
            Some(checked) => Ok(Source::Checked(Arc::clone(checked))),
            None => Ok(Source::Plain(File::open(&files.memory)?)),
        }
    }

    /// Fills `bytes` with what the file has at `offset`.
    pub(super) fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), PagerError> {
        let read = match self {
            Source::Checked(checked) => checked.read_at(offset, bytes),
            Source::Plain(file) => file.read_exact_at(bytes, offset).map_err(Into::into),
        };
        read.map_err(|source| PagerError::Snapshot { offset, source })
    }
}
