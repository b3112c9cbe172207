//! Files that the host reads.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};

use firelane_guest_proto::files::{FileStat, GetRangeSpec};
use firelane_guest_proto::message::{FileInfo, GetSpec, MAX_FILE_BYTES, Refused, RefusedCode};
use rustix::fs::{OFlags, fstat};

use super::MODE_BITS;
use super::place::Place;
use super::stat::described;
use crate::exec::refused;

/// Opens a file to be got.
pub(crate) fn open_for_get(spec: &GetSpec) -> Result<(File, FileInfo), Refused> {
    let (file, stat) = open(&spec.path)?;
    let size = stat.size;
    let cap = spec.max_bytes.min(MAX_FILE_BYTES);
    if size > cap {
        let path = spec.path.escape_debug();
        let message = format!("{path} has {size} bytes, the cap is {cap}");
        return Err(refused(RefusedCode::Exhausted, message));
    }
    let mode = stat.mode & MODE_BITS;
    Ok((file, FileInfo { size, mode }))
}

/// Opens a file at the offset that is asked for.
pub(crate) fn open_range(spec: &GetRangeSpec) -> Result<(File, FileStat), Refused> {
    let (mut file, stat) = open(&spec.path)?;
    if spec.count(stat.size) > 0 {
        file.seek(SeekFrom::Start(spec.offset)).map_err(|error| {
            let message = format!("cannot read {}: {error}", spec.path.escape_debug());
            refused(RefusedCode::Invalid, message)
        })?;
    }
    Ok((file, stat))
}

/// Opens a regular file.
fn open(path: &str) -> Result<(File, FileStat), Refused> {
    let place = Place::parse(path)?;
    let failed = |errno| place.failed("read", errno);
    // Without NONBLOCK, opening a pipe that a program planted would wait for its other end.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = place.open_existing(flags).map_err(failed)?;
    let stat = fstat(&file).map_err(failed)?;
    if stat.st_mode & libc::S_IFMT != libc::S_IFREG {
        let message = format!("{} is not a regular file", path.escape_debug());
        return Err(refused(RefusedCode::Invalid, message));
    }
    Ok((File::from(file), described(&stat, Vec::new())))
}

/// Reads until `buffer` is full or the file ends.
pub(crate) fn read_full(file: &mut impl io::Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
