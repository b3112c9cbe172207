//! The newest epoch that this host has seen of each subject: who puts an older template or snapshot back is found out.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::key::private_folder;
use super::seal::Kind;
use crate::digest::blake3_bytes;
use crate::file::{FileError, at, replace};

/// Subjects that are remembered. The one that has not changed for longest is forgotten first; snapshots come and go, and each
/// has a record of a few bytes.
const KEPT: usize = 4096;

/// A folder with a file for each subject.
#[derive(Debug, Clone)]
pub(crate) struct Epochs {
    folder: PathBuf,
}

impl Epochs {
    pub(super) fn open(folder: &Path) -> Result<Epochs, FileError> {
        if !folder.is_dir() {
            private_folder(folder)?;
        }
        Ok(Epochs {
            folder: folder.to_owned(),
        })
    }

    /// The newest that was seen; 0 if none was.
    pub(crate) fn newest(&self, kind: Kind, name: &str) -> Result<u64, FileError> {
        let path = self.path(kind, name);
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            read => read.map_err(at("read", &path))?,
        };
        text.trim()
            .parse()
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
            .map_err(at("understand", &path))
    }

    /// Remembers that this one was seen, unless a newer one was.
    pub(crate) fn raise(&self, kind: Kind, name: &str, epoch: u64) -> Result<(), FileError> {
        if epoch <= self.newest(kind, name)? {
            return Ok(());
        }
        let path = self.path(kind, name);
        let is_new = !path.exists();
        replace(&path, epoch.to_string().as_bytes(), 0o600)?;
        if is_new {
            trim(&self.folder, KEPT)?;
        }
        Ok(())
    }

    fn path(&self, kind: Kind, name: &str) -> PathBuf {
        let name = blake3_bytes(name.as_bytes());
        self.folder.join(format!("{}-{name}", kind.name()))
    }
}

/// Removes the files that have not changed for longest, if there are more than `keep`.
pub(super) fn trim(folder: &Path, keep: usize) -> Result<(), FileError> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(at("list", folder))? {
        let entry = entry.map_err(at("list", folder))?;
        let changed = entry.metadata().and_then(|meta| meta.modified()).ok();
        files.push((changed, entry.path()));
    }
    let surplus = files.len().saturating_sub(keep);
    files.sort();
    for (_, path) in files.into_iter().take(surplus) {
        match fs::remove_file(&path) {
            // Another process trims at the same time.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            done => done.map_err(at("remove", &path))?,
        }
    }
    Ok(())
}
