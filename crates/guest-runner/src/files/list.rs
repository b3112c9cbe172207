//! Pages of folders.
//!
//! A page is the smallest names after the last one's. The whole folder is read for each, but never
//! more than a page of it is kept, and nothing between two pages.

use std::collections::BinaryHeap;
use std::os::fd::{AsFd, OwnedFd};

use firelane_guest_proto::files::{Entries, Entry, ListDirSpec, MAX_PAGE_ENTRIES};
use firelane_guest_proto::frame::MAX_MESSAGE_BYTES;
use firelane_guest_proto::message::{Refused, RefusedCode};
use rustix::fs::{OFlags, RawDir, SeekFrom, seek};
use rustix::io::Errno;

use super::place::{FOLDER, Place};
use super::stat::stat_at;
use crate::exec::refused;

/// Bytes of an encoded entry besides its name and target, at most: lengths, kind, size, mode, time.
const ENTRY_BYTES: usize = 32;
/// Bytes that the kernel is asked for at once.
const READ_BYTES: usize = 32 << 10;

/// The page that is asked for.
pub(crate) fn list_dir(spec: &ListDirSpec) -> Result<Entries, Refused> {
    if !(1..=MAX_PAGE_ENTRIES).contains(&spec.limit) {
        let message = format!("a page has 1 to {MAX_PAGE_ENTRIES} entries");
        return Err(refused(RefusedCode::Invalid, message));
    }
    let place = Place::parse(&spec.path)?;
    let failed = |errno| place.failed("list", errno);
    let folder = place.open_existing(FOLDER | OFlags::RDONLY);
    let folder = folder.map_err(|errno| match errno {
        Errno::NOTDIR => place.failed_as(RefusedCode::Invalid, "list", errno),
        errno => failed(errno),
    })?;
    page(&folder, spec.after.clone(), spec.limit as usize).map_err(failed)
}

/// At most `limit` entries after `after`, as many of them as fit a frame.
fn page(folder: &OwnedFd, mut after: Vec<u8>, limit: usize) -> Result<Entries, Errno> {
    loop {
        let (names, mut more) = smallest(folder, &after, limit)?;
        let mut entries = Vec::new();
        let mut bytes = ENTRY_BYTES;
        for name in names {
            let stat = match stat_at(folder, &*name) {
                Ok(stat) => stat,
                // It was there a moment ago.
                Err(Errno::NOENT) => {
                    after = name;
                    continue;
                }
                Err(errno) => return Err(errno),
            };
            bytes += ENTRY_BYTES + name.len() + stat.target.len();
            if bytes > MAX_MESSAGE_BYTES {
                more = true;
                break;
            }
            entries.push(Entry { name, stat });
        }
        if !more || !entries.is_empty() {
            return Ok(Entries { entries, more });
        }
    }
}

/// The smallest `limit` names after `after`, and whether there are others.
fn smallest(folder: &OwnedFd, after: &[u8], limit: usize) -> Result<(Vec<Vec<u8>>, bool), Errno> {
    // The largest of those kept is on top.
    let mut kept: BinaryHeap<Vec<u8>> = BinaryHeap::new();
    let mut more = false;
    each_name(folder, |name| {
        if name <= after {
            return Ok(true);
        }
        if kept.len() < limit {
            kept.push(name.to_vec());
        } else {
            more = true;
            if let Some(mut largest) = kept.peek_mut()
                && name < &**largest
            {
                *largest = name.to_vec();
            }
        }
        Ok(true)
    })?;
    Ok((kept.into_sorted_vec(), more))
}

/// Calls `each` for the names in the folder, without `.` and `..`, until it gives false.
pub(super) fn each_name(
    folder: impl AsFd,
    mut each: impl FnMut(&[u8]) -> Result<bool, Errno>,
) -> Result<(), Errno> {
    seek(&folder, SeekFrom::Start(0))?;
    let mut buffer = Vec::with_capacity(READ_BYTES);
    let mut names = RawDir::new(folder, buffer.spare_capacity_mut());
    while let Some(entry) = names.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." && !each(name)? {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use firelane_guest_proto::files::FileKind;
    use rustix::fs::Mode;

    use super::*;

    #[test]
    fn pages_tell_every_name_once_and_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let mut expected: Vec<Vec<u8>> = (0..2500).map(|n| format!("f{n}").into_bytes()).collect();
        for name in &expected {
            fs::write(folder.path().join(str::from_utf8(name).unwrap()), "x").unwrap();
        }
        expected.sort();
        let open = rustix::fs::open(folder.path(), FOLDER, Mode::empty()).unwrap();
        for limit in [1000, 999, 2500, 2499] {
            let mut told = Vec::new();
            loop {
                let after = told.last().cloned().unwrap_or_default();
                let page = page(&open, after, limit).unwrap();
                assert!(page.entries.len() <= limit);
                told.extend(page.entries.into_iter().map(|entry| entry.name));
                if !page.more {
                    break;
                }
            }
            assert_eq!(told, expected, "limit {limit}");
        }
    }

    #[test]
    fn a_page_never_exceeds_its_frame() {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..40 {
            let link = folder.path().join(format!("{number:0>250}"));
            std::os::unix::fs::symlink("t".repeat(4000), link).unwrap();
        }
        let open = rustix::fs::open(folder.path(), FOLDER, Mode::empty()).unwrap();
        let page = page(&open, Vec::new(), 1000).unwrap();
        assert!(page.more && page.entries.len() > 10);
        assert!(
            page.entries
                .iter()
                .all(|entry| entry.stat.kind == FileKind::Link)
        );
        let kind = firelane_guest_proto::frame::Kind::Entries;
        firelane_guest_proto::message::to_frame(1, kind, &page).unwrap();
    }
}
