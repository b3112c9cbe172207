//! A template for another host: what of the store it needs, as a part of a store.
//!
//! The other host adds it to its own. It believes the seals because the keys that signed them come with
//! it, as keys that it trusts from then on.

use std::fs;
use std::path::Path;

use super::manifest::Kernel;
use super::{Store, StoreError};
use crate::file::{FileError, at};
use crate::signing::{KeyError, Refusal, SIGNATURE, Seal};

/// Why a template was not put into a folder.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// It cannot be read here.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The keys that signed it cannot be read.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Its seal cannot be read.
    #[error(transparent)]
    Seal(Refusal),
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
}

impl Store {
    /// Puts a template into a folder, laid out as a store. Large files are linked where both are on the
    /// same file system: nothing may write to them.
    ///
    /// # Errors
    /// [`ExportError`]; [`StoreError::Refused`] if it does not verify here either.
    pub fn export(&self, name: &str, folder: &Path) -> Result<(), ExportError> {
        let template = self.get(name)?.verified()?;
        let manifest = template.manifest();
        for blob in manifest.blobs() {
            let to = folder.join("blobs").join(&blob.hash);
            link(&self.blobs.path(blob), &to)?;
        }
        let json = folder.join("templates").join(format!("{name}.json"));
        self.export_sealed(&self.manifest_path(name), &json, folder)?;
        for key in self.kernel_keys()? {
            let path = self.kernel_path(&key);
            let text = fs::read(&path).map_err(at("read", &path))?;
            // Others may be of another version, and are not needed.
            let is_its = serde_json::from_slice(&text)
                .is_ok_and(|kernel: Kernel| kernel.vmlinux == manifest.kernel.vmlinux);
            if is_its {
                let to = folder.join("kernels").join(format!("{key}.json"));
                self.export_sealed(&path, &to, folder)?;
            }
        }
        Ok(())
    }

    /// A manifest with its seal.
    fn export_sealed(&self, from: &Path, to: &Path, folder: &Path) -> Result<(), ExportError> {
        copy(from, to)?;
        let seal = self.seal_path(&fs::read(from).map_err(at("read", from))?);
        let signed_by = fs::read(&seal).map_err(at("read", &seal))?;
        let signed_by = Seal::parse(&signed_by).map_err(ExportError::Seal)?.key;
        for key in self.signing().keys().list()? {
            if key.id == signed_by {
                let trusted = folder.join("signing/trusted");
                copy(&key.path, &trusted.join(format!("{signed_by}.pub")))?;
            }
        }
        for path in [seal.clone(), seal.with_extension(SIGNATURE)] {
            let name = path.file_name().unwrap_or_default();
            copy(&path, &folder.join("seals").join(name))?;
        }
        Ok(())
    }
}

fn link(from: &Path, to: &Path) -> Result<(), FileError> {
    make_parent(to)?;
    match fs::hard_link(from, to) {
        Ok(()) => Ok(()),
        // Another file system, or one without links.
        Err(_) => copy(from, to),
    }
}

fn copy(from: &Path, to: &Path) -> Result<(), FileError> {
    make_parent(to)?;
    fs::copy(from, to).map_err(at("copy", from)).map(drop)
}

fn make_parent(path: &Path) -> Result<(), FileError> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder).map_err(at("create", folder))
}
