//! Folders for half-made things. Each belongs to a lock file held by the process that fills it; a folder whose lock is
//! free was left by a process that died, and is swept.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::lock::Lock;
use crate::file::{FileError, at};

const LOCK: &str = "lock";

/// A folder of our own, removed with its content when dropped.
#[derive(Debug)]
pub(crate) struct Staging {
    folder: PathBuf,
    lock_path: PathBuf,
    _lock: Lock,
}

impl Staging {
    /// Makes a new folder below `root`.
    pub(crate) fn create(root: &Path) -> Result<Self, FileError> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        loop {
            let name = format!(
                "{}-{}",
                std::process::id(),
                NEXT.fetch_add(1, Ordering::Relaxed)
            );
            let folder = root.join(&name);
            let lock_path = folder.with_added_extension(LOCK);
            let Some(lock) = Lock::try_exclusive(&lock_path).map_err(at("lock", &lock_path))?
            else {
                continue;
            };
            // A sweeper may have removed the file between its creation and our lock: then the lock protects nothing.
            if !lock_path.exists() || folder.exists() {
                continue;
            }
            fs::create_dir(&folder).map_err(at("create", &folder))?;
            return Ok(Self {
                folder,
                lock_path,
                _lock: lock,
            });
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // What cannot be removed now is swept at the next open.
        let _ = remove_tree(&self.folder);
        let _ = fs::remove_file(&self.lock_path);
    }
}

/// Removes what dead processes left below `root`. Returns how many folders were removed.
pub(crate) fn sweep(root: &Path) -> Result<usize, FileError> {
    let mut swept = 0;
    for entry in fs::read_dir(root).map_err(at("list", root))? {
        let path = entry.map_err(at("list", root))?.path();
        let lock_path = if path.extension().is_some_and(|extension| extension == LOCK) {
            path.clone()
        } else {
            path.with_added_extension(LOCK)
        };
        let folder = lock_path.with_extension("");
        let Some(_lock) = Lock::try_exclusive(&lock_path).map_err(at("lock", &lock_path))? else {
            continue;
        };
        if folder.exists() {
            remove_tree(&folder).map_err(at("remove", &folder))?;
            swept += 1;
        }
        let _ = fs::remove_file(&lock_path);
    }
    Ok(swept)
}

/// Removes a tree even where unpacked folders are not writable; never leaves its file system.
fn remove_tree(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_up(folder, fs::symlink_metadata(folder)?.dev())?;
            fs::remove_dir_all(folder)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

fn open_up(folder: &Path, device: u64) -> io::Result<()> {
    let meta = fs::symlink_metadata(folder)?;
    if !meta.is_dir() || meta.dev() != device {
        return Ok(());
    }
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(folder)? {
        open_up(&entry?.path(), device)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_staging_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let staging = Staging::create(root.path()).unwrap();
        fs::create_dir(staging.path().join("closed")).unwrap();
        fs::set_permissions(
            staging.path().join("closed"),
            fs::Permissions::from_mode(0o000),
        )
        .unwrap();
        drop(staging);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn only_what_nobody_owns_is_swept() {
        let root = tempfile::tempdir().unwrap();
        let live = Staging::create(root.path()).unwrap();
        let dead = Staging::create(root.path()).unwrap();
        // What SIGKILL leaves: folder and lock file, but no lock.
        fs::create_dir(root.path().join("1-0")).unwrap();
        fs::write(root.path().join("1-0/file"), "half").unwrap();
        fs::write(root.path().join("1-0.lock"), "").unwrap();
        fs::create_dir(root.path().join("1-1")).unwrap();
        drop(dead);
        assert_eq!(sweep(root.path()).unwrap(), 2);
        assert!(live.path().is_dir());
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 2);
    }
}
