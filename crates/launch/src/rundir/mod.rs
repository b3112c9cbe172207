//! What a microVM owns on the host, on record before it exists.
//!
//! ```text
//!   <base>/<id>/owner    held by flock(2) as long as the owning process lives; the record as JSON
//!              /root     mount point of the jail's root
//!              /v.sock   the microVM's ports
//!              /vmm      the VMM's own: its sockets, if it makes them itself
//!         /.lock          held while one of them is made, or orphans are looked for
//! ```
//!
//! A folder whose lock is free has lost its owner. The sweep at the next start ends its VMM, if
//! that still lives, and removes its cgroups and files; folders without our record are not ours
//! and stay.

mod sweep;

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use firelane_sys::cgroup::Cgroups;
use firelane_sys::process::ProcessId;
use rustix::fs::{FileType, FlockOperation, OFlags, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

pub use sweep::{Swept, sweep};

const OWNER: &str = "owner";
/// Lock of the base folder: shared to make a run directory, exclusive to look for orphans.
const LOCK: &str = ".lock";
/// How long others may hold that lock: they only make, or look at, a few folders.
const LOCK_DEADLINE: Duration = Duration::from_secs(5);
/// Start of the names of run directories that are being made.
const ASIDE: &str = ".new-";
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
    #[error("{path} belongs to another user, or others may write it")]
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
    /// firelane-hostd has started it, and removes process and cgroups itself: here are only our sockets.
    #[serde(default)]
    pub hosted: bool,
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
        // Until this run directory has its own lock, the base's keeps sweeps away.
        let _made = lock_base(base, true).map_err(|source| RunDirError::Make {
            path: base.into(),
            source,
        })?;
        let path = base.join(id);
        let socket = path.join("v.sock");
        fits_socket(&socket)?;
        // Made aside and moved into place: what is found aside was never finished.
        let aside = base.join(format!("{ASIDE}{id}"));
        make_folder(&aside)?;
        make_folder(&aside.join("root"))?;
        let owner = aside.join(OWNER);
        let mut private = File::options();
        private.write(true).create_new(true).mode(0o600);
        let lock = private.open(&owner).map_err(|source| RunDirError::Make {
            path: owner.clone(),
            source,
        })?;
        let made = flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(io::Error::from)
            .and_then(|()| fs::rename(&aside, &path));
        if let Err(source) = made {
            // Left there, it would be in the way of whoever has the name.
            if let Err(error) = remove_aside(&aside) {
                tracing::warn!(path = %aside.display(), %error, "cannot remove a half-made run directory");
            }
            return Err(RunDirError::Make { path, source });
        }
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

    /// Makes the folder in which the VMM may make sockets and files, for this user if there is one.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn make_open(&self, user: Option<u32>) -> io::Result<PathBuf> {
        let path = self.path.join("vmm");
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        std::os::unix::fs::chown(&path, user, user)?;
        Ok(path)
    }

    /// Makes the folder in which a VMM of another user's may make sockets and files; see [`make_shared`].
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn make_shared(&self) -> io::Result<PathBuf> {
        make_shared(&self.path.join("vmm"))
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
        remove(&self.path)
    }
}

/// Makes `outer`, where nobody but us gets in, and a folder in it that all may write: who is handed that one
/// open, and we.
///
/// # Errors
/// If they cannot be made.
pub fn make_shared(outer: &Path) -> io::Result<PathBuf> {
    fs::DirBuilder::new().mode(0o700).create(outer)?;
    let path = outer.join("open");
    fs::create_dir(&path)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777))?;
    Ok(path)
}

/// Refuses a path that no socket can be bound to.
///
/// # Errors
/// [`RunDirError::TooLong`].
pub fn fits_socket(path: &Path) -> Result<(), RunDirError> {
    let length = path.as_os_str().len();
    if length <= MAX_SOCKET_PATH {
        return Ok(());
    }
    Err(RunDirError::TooLong {
        path: path.into(),
        length,
    })
}

/// Removes a run directory. Half removed, it is one that was never finished, which a sweep takes.
fn remove(path: &Path) -> io::Result<()> {
    let (Some(base), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let mut aside = OsString::from(ASIDE);
    aside.push(name);
    let aside = base.join(aside);
    fs::rename(path, &aside)?;
    remove_aside(&aside)
}

/// Removes what is aside. A sweep of another process may be at it as well: then it is gone all the same.
fn remove_aside(aside: &Path) -> io::Result<()> {
    match fs::remove_dir_all(aside) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Takes the lock of the base folder; it is free again when the file is dropped. Only its owner can
/// open it, so nobody else can hold it.
fn lock_base(base: &Path, shared: bool) -> io::Result<File> {
    let operation = if shared {
        FlockOperation::NonBlockingLockShared
    } else {
        FlockOperation::NonBlockingLockExclusive
    };
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(base.join(LOCK))?;
    let start = Instant::now();
    loop {
        match flock(&file, operation) {
            Ok(()) => return Ok(file),
            Err(Errno::WOULDBLOCK) if start.elapsed() < LOCK_DEADLINE => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(errno) => return Err(errno.into()),
        }
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
    if is_ours(base) {
        Ok(())
    } else {
        Err(RunDirError::NotOurs { path: base.into() })
    }
}

/// Whether this is a folder, not a link to one, that belongs to us and that nobody else may write.
fn is_ours(folder: &Path) -> bool {
    rustix::fs::lstat(folder).is_ok_and(|stat| {
        FileType::from_raw_mode(stat.st_mode).is_dir()
            && stat.st_uid == rustix::process::geteuid().as_raw()
            && stat.st_mode & 0o022 == 0
    })
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
