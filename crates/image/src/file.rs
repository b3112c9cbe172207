//! File operations whose errors name the file.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::tree::unpack::remove_old;

/// An operation on a file or folder that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}", path.display())]
pub struct FileError {
    /// What was being done: read, write, remove ...
    pub action: &'static str,
    /// The file or folder.
    pub path: PathBuf,
    /// What the kernel said.
    #[source]
    pub source: io::Error,
}

/// For `map_err`: names the action and the file.
pub(crate) fn at(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError + use<> {
    let path = path.to_owned();
    move |source| FileError {
        action,
        path,
        source,
    }
}

/// Reads a whole file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    fs::read(path).map_err(at("read", path))
}

/// Makes a folder and those above it.
pub(crate) fn make_folder(path: &Path) -> Result<(), FileError> {
    fs::create_dir_all(path).map_err(at("create", path))
}

/// Makes a new file with this content and mode in place of whatever file or link has the name; makes folders above it.
pub(crate) fn put(path: &Path, content: &[u8], mode: u32) -> Result<(), FileError> {
    if let Some(parent) = path.parent() {
        make_folder(parent)?;
    }
    remove_old(path).map_err(at("replace", path))?;
    let mut file = File::create_new(path).map_err(at("create", path))?;
    file.write_all(content).map_err(at("write", path))?;
    file.set_permissions(Permissions::from_mode(mode))
        .map_err(at("set the mode of", path))
}

/// Makes a file with this content and mode in place of any of that name, in one step: nobody sees half of it.
pub(crate) fn replace(path: &Path, content: &[u8], mode: u32) -> Result<(), FileError> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let draft = path.with_added_extension(format!("{}-{number}", std::process::id()));
    put(&draft, content, mode)?;
    sync(&draft)?;
    fs::rename(&draft, path).map_err(at("replace", path))
}

/// Flushes a file or folder to the disk.
pub(crate) fn sync(path: &Path) -> Result<(), FileError> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(at("flush", path))
}
