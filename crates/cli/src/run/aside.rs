//! Files of the host that are written aside, then moved into place.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::failure::Failure;

/// A file that is not in its place yet. Dropped, it is gone.
pub(super) struct Aside {
    file: NamedTempFile,
    place: PathBuf,
}

impl Aside {
    /// One that is to be at `place`.
    pub(super) fn of(place: &Path) -> Result<Aside, Failure> {
        let folder = place
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        let file = tempfile::Builder::new()
            .prefix(".firelane-")
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(folder.unwrap_or(Path::new(".")))
            .map_err(|error| cannot_write(place, error))?;
        Ok(Aside {
            file,
            place: place.into(),
        })
    }

    /// To be written to.
    pub(super) fn file(&self) -> Result<File, Failure> {
        let file = self.file.reopen();
        file.map_err(|error| cannot_write(&self.place, error))
    }

    /// It is complete.
    pub(super) fn into_place(self) -> Result<(), Failure> {
        match self.file.persist(&self.place) {
            Ok(_) => Ok(()),
            Err(error) => Err(cannot_write(&self.place, error.error)),
        }
    }
}

/// A file of the host that cannot be written.
pub(super) fn cannot_write(path: &Path, error: std::io::Error) -> Failure {
    let context = format!("cannot write {}", path.display());
    Failure::platform(anyhow::Error::from(error).context(context))
}
