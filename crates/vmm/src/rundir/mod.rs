//! What a microVM owns on the host, on record before it exists.
//!
//! ```text
//!   <base>/<id>/owner    held by flock(2) as long as the owning process lives; the record as JSON
//!              /root     mount point of the jail's root
//!              /v.sock   the microVM's ports
//! ```
//!
//! A folder whose lock is free has lost its owner. The sweep at the next start ends its VMM, if
//! that still lives, and removes its cgroups and files; folders without our record are not ours
//! and stay.

mod sweep;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use firelane_sys::cgroup::Cgroups;
use firelane_sys::process::ProcessId;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

pub use sweep::{Swept, sweep};

const OWNER: &str = "owner";
/// Longest path of a Unix socket, in bytes; `sun_path` of unix(7) without its NUL.
const MAX_SOCKET_PATH: usize = 107;

/// Why a run directory could not be made.
#[derive(Debug, thiserror::Error)]
pub enum RunDirError {
    /// A file or folder of it.
    #[error("cannot make {path}")]
    Make {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The base folder belongs to somebody else, who could replace what is in it.
    #[error("{path} belongs to another user")]
    NotOurs {
        /// The base folder.
        path: PathBuf,
    },
    /// Its sockets could not be bound.
    #[error("{path} is too long for a socket ({length} bytes, at most {MAX_SOCKET_PATH})")]
    TooLong {
        /// The socket's path.
        path: PathBuf,
        /// Its length.
        length: usize,
    },
}

/// What is on record of a microVM.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its VMM's process, once there is one.
    pub vmm: Option<ProcessId>,
    /// Its cgroups.
    pub cgroups: Cgroups,
}

/// A run directory that we own.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    lock: File,
}

/// Where run directories are: `$FIRELANE_RUN_DIR`, else `/run/firelane` as root, else a folder of
/// the user's.
#[must_use]
pub fn default_base() -> PathBuf {
    if let Some(base) = std::env::var_os("FIRELANE_RUN_DIR") {
        return base.into();
    }
    let uid = rustix::process::geteuid();
    if uid.is_root() {
        return "/run/firelane".into();
    }
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(runtime) => Path::new(&runtime).join("firelane"),
        None => format!("/tmp/firelane-{}", uid.as_raw()).into(),
    }
}

impl RunDir {
    /// Makes the directory of the microVM `id` and takes its lock.
    ///
    /// # Errors
    /// [`RunDirError`].
    pub fn make(base: &Path, id: &str) -> Result<RunDir, RunDirError> {
        make_base(base)?;
        let path = base.join(id);
        let socket = path.join("v.sock");
        let length = socket.as_os_str().len();
        if length > MAX_SOCKET_PATH {
            return Err(RunDirError::TooLong {
                path: socket,
                length,
            });
        }
        // Made aside and moved into place, so that a sweep never meets it without its lock held.
        let aside = base.join(format!(".{id}"));
        make_folder(&aside)?;
        make_folder(&aside.join("root"))?;
        let owner = aside.join(OWNER);
        let lock = File::create_new(&owner).map_err(|source| RunDirError::Make {
            path: owner.clone(),
            source,
        })?;
        let made = flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(io::Error::from)
            .and_then(|()| fs::rename(&aside, &path));
        made.map_err(|source| RunDirError::Make {
            path: path.clone(),
            source,
        })?;
        Ok(RunDir { path, lock })
    }

    /// Puts on record what the microVM owns from now on.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn record(&self, record: &Record) -> io::Result<()> {
        let text = serde_json::to_vec(record).map_err(io::Error::other)?;
        // One write to the locked file: replacing it would lose the lock.
        rustix::io::pwrite(&self.lock, &text, 0)?;
        rustix::fs::ftruncate(&self.lock, text.len() as u64)?;
        Ok(())
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Mount point of the jail's root.
    #[must_use]
    pub fn jail_root(&self) -> PathBuf {
        self.path.join("root")
    }

    /// The socket of the microVM's ports.
    #[must_use]
    pub fn vsock(&self) -> PathBuf {
        self.path.join("v.sock")
    }

    /// Removes the directory; its processes must have ended.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub fn remove(self) -> io::Result<()> {
        fs::remove_dir_all(&self.path)
    }
}

fn make_base(base: &Path) -> Result<(), RunDirError> {
    let failed = |source| RunDirError::Make {
        path: base.into(),
        source,
    };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(base)
        .map_err(failed)?;
    let stat = rustix::fs::stat(base).map_err(|errno| failed(errno.into()))?;
    let ours = stat.st_uid == rustix::process::geteuid().as_raw();
    let writable_by_others = stat.st_mode & 0o022 != 0;
    if !ours || writable_by_others {
        return Err(RunDirError::NotOurs { path: base.into() });
    }
    Ok(())
}

/// A folder that the VMM's user may enter but not write.
fn make_folder(path: &Path) -> Result<(), RunDirError> {
    fs::create_dir(path)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o711)))
        .map_err(|source| RunDirError::Make {
            path: path.into(),
            source,
        })
}
