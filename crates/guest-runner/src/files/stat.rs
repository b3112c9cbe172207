//! What is at a path, without reading it.

use std::os::fd::AsFd;

use firelane_guest_proto::files::{FileKind, FileStat, MAX_PATH_BYTES, StatSpec};
use firelane_guest_proto::message::Refused;
use rustix::fs::{AtFlags, OFlags, Stat, fstat, readlinkat, statat};
use rustix::io::Errno;
use rustix::path::Arg;

use super::place::Place;

/// What is at a path.
pub(crate) fn stat(spec: &StatSpec) -> Result<FileStat, Refused> {
    let place = Place::parse(&spec.path)?;
    let failed = |errno| place.failed("look at", errno);
    if place.is_root() {
        let folder = place.open_existing(OFlags::PATH).map_err(failed)?;
        return Ok(described(&fstat(&folder).map_err(failed)?, Vec::new()));
    }
    let (parent, name) = place.existing_parent()?;
    stat_at(&parent, name).map_err(failed)
}

/// What has this name in the folder.
pub(super) fn stat_at(folder: impl AsFd, name: impl Arg + Copy) -> Result<FileStat, Errno> {
    let stat = statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let target = if stat.st_mode & libc::S_IFMT == libc::S_IFLNK {
        let mut target = readlinkat(&folder, name, Vec::new())?.into_bytes();
        target.truncate(MAX_PATH_BYTES);
        target
    } else {
        Vec::new()
    };
    Ok(described(&stat, target))
}

pub(super) fn described(stat: &Stat, target: Vec<u8>) -> FileStat {
    let kind = match stat.st_mode & libc::S_IFMT {
        libc::S_IFREG => FileKind::File,
        libc::S_IFDIR => FileKind::Folder,
        libc::S_IFLNK => FileKind::Link,
        _ => FileKind::Other,
    };
    let (seconds, nanos) = (stat.st_mtime, i64::try_from(stat.st_mtime_nsec));
    FileStat {
        kind,
        size: u64::try_from(stat.st_size).unwrap_or(0),
        mode: stat.st_mode & 0o7777,
        // A program may set any time: what does not fit is the last that does.
        mtime_ns: seconds
            .saturating_mul(1_000_000_000)
            .saturating_add(nanos.unwrap_or(0)),
        target,
    }
}
