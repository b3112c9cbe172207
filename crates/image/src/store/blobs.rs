//! Blobs: in by rename, out when no manifest names them.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::manifest::Blob;
use crate::digest::blake3_file;
use crate::file::{FileError, at, sync};

/// What re-hashing a blob showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verification {
    /// The content is what the name says.
    Intact,
    /// The file is gone.
    Missing,
    /// The content has changed.
    Damaged,
}

/// The folder of blobs.
#[derive(Debug, Clone)]
pub(crate) struct Blobs {
    folder: PathBuf,
}

impl Blobs {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    pub(crate) fn path(&self, blob: &Blob) -> PathBuf {
        self.folder.join(&blob.hash)
    }

    /// Moves `file` (on the same file system) into the store. Adding what is there already changes nothing.
    pub(crate) fn add(&self, file: &Path) -> Result<Blob, FileError> {
        let (hash, size) = blake3_file(file).map_err(at("read", file))?;
        let blob = Blob { hash, size };
        fs::set_permissions(file, Permissions::from_mode(0o444))
            .map_err(at("set the mode of", file))?;
        sync(file)?;
        let path = self.path(&blob);
        fs::rename(file, &path).map_err(at("move into the store", &path))?;
        sync(&self.folder)?;
        Ok(blob)
    }

    /// Whether the file is there with the recorded size; says nothing about its content.
    pub(crate) fn has(&self, blob: &Blob) -> bool {
        self.path(blob)
            .metadata()
            .is_ok_and(|meta| meta.is_file() && meta.len() == blob.size)
    }

    /// Hashes the file again.
    pub(crate) fn verify(&self, blob: &Blob) -> Result<Verification, FileError> {
        let path = self.path(blob);
        if !path.exists() {
            return Ok(Verification::Missing);
        }
        let (hash, _) = blake3_file(&path).map_err(at("read", &path))?;
        Ok(if hash == blob.hash {
            Verification::Intact
        } else {
            Verification::Damaged
        })
    }

    /// Removes every blob not in `used`. Returns the bytes freed.
    pub(crate) fn keep_only(&self, used: &BTreeSet<String>) -> Result<u64, FileError> {
        let mut freed = 0;
        for entry in fs::read_dir(&self.folder).map_err(at("list", &self.folder))? {
            let entry = entry.map_err(at("list", &self.folder))?;
            if used.contains(&*entry.file_name().to_string_lossy()) {
                continue;
            }
            let path = entry.path();
            freed += entry.metadata().map_err(at("read", &path))?.len();
            fs::remove_file(&path).map_err(at("remove", &path))?;
        }
        Ok(freed)
    }
}
