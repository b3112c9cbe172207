//! Snapshots: where Firecracker writes them, and how they become files of ours.
//!
//! Firecracker writes into a folder that its jail shows it, always to names that do not exist yet, or are those of
//! empty files: a memory file of its size that is there already would keep its old pages below a Diff. What comes out is the work
//! of a process that a guest may have taken over, so it is opened without following links and has to be
//! a plain file.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use firelane_host_proto::message::Role;
use rustix::fs::{OFlags, SeekFrom, copy_file_range, seek};
use rustix::io::Errno;

use super::api::{Api, ApiError};
use super::requests::{CreateSnapshot, SnapshotKind};
use super::sight::Sight;
use crate::driver::SnapshotFiles;
use crate::rundir::make_shared;

/// How long a snapshot may take beside what its size adds.
const SAVE_TIMEOUT: Duration = Duration::from_secs(30);
/// What is counted on at least, in MiB per second; the slowest disks that were met do tens.
const SLOWEST_MIB_PER_S: u32 = 16;
/// Others read a snapshot, VMMs with a user of their own among them; a folder keeps it from those that
/// shall not.
const READABLE: u32 = 0o444;
/// What is copied at once where the kernel does not do it by itself, in bytes.
const COPIED_BYTES: usize = 1 << 20;

/// Names of the files that it writes.
const MEMORY: &str = "memory";
const STATE: &str = "state";

/// A folder for a snapshot that does not exist yet, beside its files.
#[derive(Debug)]
pub(super) struct Place {
    /// What is removed in the end: the folder, or what keeps everybody else away from it.
    outer: PathBuf,
    folder: PathBuf,
    files: SnapshotFiles,
}

impl Place {
    /// Makes the folder.
    pub(super) fn make(files: SnapshotFiles, sight: Sight) -> io::Result<Place> {
        let outer = files.memory.with_extension("vmm");
        match sight {
            Sight::AsOutside => {
                fs::DirBuilder::new().mode(0o700).create(&outer)?;
                let folder = outer.clone();
                Ok(Place {
                    outer,
                    folder,
                    files,
                })
            }
            Sight::Hosted => {
                let folder = make_shared(&outer)?;
                let place = Place {
                    outer,
                    folder,
                    files,
                };
                let written = Written::of(&place.folder, sight, Role::Snapshot);
                // A user that is not root cannot make another's files its own: so they are its own from the
                // beginning. Firecracker sizes an empty file anew.
                for path in [&written.memory, &written.state] {
                    let file = File::create_new(path)?;
                    file.set_permissions(Permissions::from_mode(0o666))?;
                }
                Ok(place)
            }
        }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn files(&self) -> &SnapshotFiles {
        &self.files
    }

    /// What Firecracker left there becomes the snapshot's files. It must have ended.
    pub(super) fn keep(self) -> io::Result<()> {
        let written = Written::of(&self.folder, Sight::AsOutside, Role::Snapshot);
        for (from, to) in [
            (&written.memory, &self.files.memory),
            (&written.state, &self.files.state),
        ] {
            close_to_writing(&plain(from)?)?;
            fs::rename(from, to)?;
        }
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        match fs::remove_dir_all(&self.outer) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %self.outer.display(), %error, "cannot remove a snapshot's folder");
            }
            _ => {}
        }
    }
}

/// What Firecracker writes.
#[derive(Clone, Debug)]
pub(super) struct Written {
    memory: PathBuf,
    state: PathBuf,
    /// The folder as Firecracker finds it.
    seen: PathBuf,
}

impl Written {
    /// What it writes into this folder, which it has been given in this role.
    pub(super) fn of(folder: &Path, sight: Sight, role: Role) -> Written {
        Written {
            memory: folder.join(MEMORY),
            state: folder.join(STATE),
            seen: sight.of(role, folder),
        }
    }

    /// Has Firecracker write them. The microVM must be paused.
    pub(super) async fn write(
        &self,
        api: &mut Api,
        kind: SnapshotKind,
        memory_mib: u32,
    ) -> Result<(), ApiError> {
        let create = CreateSnapshot {
            snapshot_type: kind,
            snapshot_path: &self.seen.join(STATE),
            mem_file_path: &self.seen.join(MEMORY),
        };
        let size = Duration::from_secs((memory_mib / SLOWEST_MIB_PER_S).into());
        api.put("/snapshot/create", &create, SAVE_TIMEOUT + size)
            .await
    }

    /// Copies them to `files`, which do not exist yet, and removes them. Holes stay holes.
    pub(super) fn copy_to(&self, files: &SnapshotFiles) -> io::Result<()> {
        for (from, to) in [(&self.memory, &files.memory), (&self.state, &files.state)] {
            copy(from, to)?;
            fs::remove_file(from)?;
        }
        Ok(())
    }

    /// Removes what there is of them.
    pub(super) fn discard(&self) {
        for path in [&self.memory, &self.state] {
            let _ = fs::remove_file(path);
        }
    }
}

/// The file at `path`, which must be a plain one with no other name.
fn plain(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mut options = File::options();
    options.read(true).custom_flags(flags.bits().cast_signed());
    let file = options.open(path)?;
    let meta = file.metadata()?;
    if meta.is_file() && meta.nlink() == 1 {
        Ok(file)
    } else {
        let what = format!("{} is no plain file", path.display());
        Err(io::Error::other(what))
    }
}

/// The file becomes ours, and nobody writes it any more.
fn close_to_writing(file: &File) -> io::Result<()> {
    let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
    rustix::fs::fchown(file, Some(user), Some(group))?;
    file.set_permissions(Permissions::from_mode(READABLE))
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let from = plain(from)?;
    let size = from.metadata()?.len();
    let mut options = File::options();
    options.read(true).write(true).create_new(true).mode(0o600);
    let to = options.open(to)?;
    to.set_len(size)?;
    let mut at = 0;
    while at < size {
        let data = match seek(&from, SeekFrom::Data(at)) {
            Ok(data) => data,
            // Nothing but a hole is left.
            Err(Errno::NXIO) => break,
            Err(errno) => return Err(errno.into()),
        };
        let hole = seek(&from, SeekFrom::Hole(data))?.min(size);
        copy_range(&from, &to, data, hole)?;
        at = hole;
    }
    close_to_writing(&to)
}

fn copy_range(from: &File, to: &File, start: u64, end: u64) -> io::Result<()> {
    let (mut read, mut write) = (start, start);
    while read < end {
        let length = usize::try_from(end - read).unwrap_or(usize::MAX);
        match copy_file_range(from, Some(&mut read), to, Some(&mut write), length) {
            // It became shorter while it was read.
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            // From one file system to another of another kind. Source: copy_file_range(2), "ERRORS".
            Err(Errno::XDEV | Errno::OPNOTSUPP | Errno::NOSYS) => {
                return copy_by_hand(from, to, read, end);
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

fn copy_by_hand(from: &File, to: &File, start: u64, end: u64) -> io::Result<()> {
    let mut buffer = vec![0; COPIED_BYTES];
    let mut at = start;
    while at < end {
        let length = usize::try_from(end - at).unwrap_or(usize::MAX);
        let piece = &mut buffer[..length.min(COPIED_BYTES)];
        from.read_exact_at(piece, at)?;
        to.write_all_at(piece, at)?;
        at += piece.len() as u64;
    }
    Ok(())
}

/// Whether the host may have put pages of a guest aside, where a Diff would not find them. Source:
/// proc_swaps(5): a heading, then a line for each.
pub(super) fn host_swaps() -> bool {
    let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
    swaps.lines().count() > 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_the_content_and_the_holes() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        let file = File::create(&from).unwrap();
        file.set_len(64 << 20).unwrap();
        file.write_all_at(b"begin", 0).unwrap();
        file.write_all_at(b"middle", 32 << 20).unwrap();
        copy(&from, &to).unwrap();
        assert_eq!(fs::read(&from).unwrap(), fs::read(&to).unwrap());
        let meta = fs::metadata(&to).unwrap();
        assert!(meta.blocks() * 512 < 1 << 20, "{} blocks", meta.blocks());
        assert_eq!(meta.permissions().mode() & 0o777, READABLE);
    }

    #[test]
    fn a_copy_to_another_file_system_is_the_same() {
        let (folder, other) = (tempfile::tempdir().unwrap(), Path::new("/dev/shm"));
        let from = folder.path().join("from");
        let content: Vec<u8> = (0..3 << 20).map(|byte: u32| (byte % 251) as u8).collect();
        fs::write(&from, &content).unwrap();
        let other = tempfile::tempdir_in(other).unwrap();
        let to = other.path().join("to");
        copy(&from, &to).unwrap();
        assert!(fs::read(&to).unwrap() == content);
    }

    #[test]
    fn a_link_is_not_followed_and_a_second_name_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link, other) = (
            folder.path().join("file"),
            folder.path().join("link"),
            folder.path().join("other"),
        );
        fs::write(&file, "x").unwrap();
        plain(&file).unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert!(plain(&link).is_err());
        fs::hard_link(&file, &other).unwrap();
        assert!(plain(&file).is_err());
        assert!(plain(folder.path()).is_err());
    }
}
