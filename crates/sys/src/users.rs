//! Users that VMMs run as: one for each, so that no VMM can touch another's process or files.
//!
//! A number is reserved by a lock on a file of its own, in a folder that all of Firelane on this host
//! shares. The lock is held by whoever has the file open: the owner of the VMM, and its keeper, which
//! ends after the VMM. So a number is free again when its VMM is gone, however its owner ended.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

/// First of the numbers. Source: systemd, "Users, Groups, UIDs and GIDs on systemd Systems": numbers
/// from here up to 2^31 are not assigned to anything.
const FIRST: u32 = 0x7000_0000;
/// How many there are, and so how many VMMs run on a host at most.
const COUNT: u32 = 1 << 14;
/// Where their files are. The name is no microVM's, so that no sweep takes it for one.
const FOLDER: &str = "/run/firelane/.users";

/// No user could be reserved.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// A file or folder of the pool cannot be used.
    #[error("cannot use {path}")]
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The folder belongs to somebody else, who could give one number twice.
    #[error("{path} belongs to another user, or others may write it")]
    NotOurs {
        /// The folder.
        path: PathBuf,
    },
    /// All are in use.
    #[error("all {COUNT} users of this host's microVMs are in use")]
    Exhausted,
}

/// A user, and the group of the same number, for one VMM; free again when it is dropped and no VMM
/// has it.
#[derive(Debug)]
pub struct User {
    number: u32,
    lock: File,
}

impl User {
    /// Reserves one for the microVM `id`; `None` if we are not root, and cannot become another.
    ///
    /// # Errors
    /// [`UserError`].
    pub fn reserve(id: &str) -> Result<Option<User>, UserError> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        reserve_in(Path::new(FOLDER), first_choice(id), COUNT).map(Some)
    }

    /// Its number.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// What the VMM's keeper keeps open for as long as there is a VMM.
    ///
    /// # Errors
    /// If there are no descriptors left.
    pub fn hold(&self) -> io::Result<OwnedFd> {
        self.lock.try_clone().map(OwnedFd::from)
    }
}

/// Where the search begins. Names spread over the numbers, so that the first is mostly free.
fn first_choice(id: &str) -> u32 {
    let hash = id.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    hash % COUNT
}

fn reserve_in(folder: &Path, first: u32, count: u32) -> Result<User, UserError> {
    make(folder)?;
    for choice in 0..count {
        let number = FIRST + (first + choice) % count;
        let path = folder.join(number.to_string());
        let failed = |source| UserError::File {
            path: path.clone(),
            source,
        };
        let lock = open(&path).map_err(failed)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(User { number, lock }),
            Err(Errno::WOULDBLOCK) => {}
            Err(errno) => return Err(failed(errno.into())),
        }
    }
    Err(UserError::Exhausted)
}

/// The file of a number. It stays: without it, two could have a lock of one name.
fn open(path: &Path) -> io::Result<File> {
    File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(path)
}

fn make(folder: &Path) -> Result<(), UserError> {
    let failed = |source| UserError::File {
        path: folder.into(),
        source,
    };
    if let Some(parent) = folder.parent() {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o755);
        builder.create(parent).map_err(failed)?;
    }
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => {}
    }
    if is_ours(folder).map_err(failed)? {
        Ok(())
    } else {
        Err(UserError::NotOurs {
            path: folder.into(),
        })
    }
}

fn is_ours(folder: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let found = fs::symlink_metadata(folder)?;
    let owner = rustix::process::geteuid().as_raw();
    Ok(found.is_dir() && found.uid() == owner && found.mode() & 0o022 == 0)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn no_two_have_one_number_at_once_whatever_they_begin_with() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("users");
        let mut users: Vec<User> = (0..8).map(|_| reserve_in(&folder, 5, 8).unwrap()).collect();
        let numbers: HashSet<u32> = users.iter().map(User::number).collect();
        assert_eq!(numbers.len(), 8);
        assert!(
            numbers
                .iter()
                .all(|number| (FIRST..FIRST + 8).contains(number))
        );
        let error = reserve_in(&folder, 0, 8).unwrap_err();
        assert!(matches!(error, UserError::Exhausted), "{error:?}");
        let freed = users.pop().unwrap().number();
        assert_eq!(reserve_in(&folder, 0, 8).unwrap().number(), freed);
    }

    #[test]
    fn a_number_is_taken_for_as_long_as_a_keeper_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("users");
        let user = reserve_in(&folder, 0, 1).unwrap();
        let held = user.hold().unwrap();
        drop(user);
        let error = reserve_in(&folder, 0, 1).unwrap_err();
        assert!(matches!(error, UserError::Exhausted), "{error:?}");
        drop(held);
        reserve_in(&folder, 0, 1).unwrap();
    }

    #[test]
    fn a_folder_that_others_may_write_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let error = reserve_in(folder.path(), 0, 1).unwrap_err();
        assert!(matches!(error, UserError::NotOurs { .. }), "{error:?}");
    }
}
