//! What a guest says of its files, believed only as far as it can be true.

use firelane_guest_proto::files::{
    Change, Entries, Events, FileKind, FileStat, ListDirSpec, MAX_NAME_BYTES, MAX_PATH_BYTES,
};

use crate::session::{SessionError, violation};

pub(super) fn stat(stat: &FileStat) -> Result<(), SessionError> {
    let link = stat.kind == FileKind::Link;
    let target = &stat.target;
    if link == target.is_empty() || target.len() > MAX_PATH_BYTES || target.contains(&0) {
        return Err(violation("a link without a target, or one that cannot be"));
    }
    if stat.mode > 0o7777 {
        return Err(violation("permission bits that do not exist"));
    }
    Ok(())
}

pub(super) fn page(asked: &ListDirSpec, page: &Entries) -> Result<(), SessionError> {
    if page.entries.len() > asked.limit as usize {
        return Err(violation("more entries than were asked for"));
    }
    if page.more && page.entries.is_empty() {
        return Err(violation("an empty page, and more to come"));
    }
    let mut last = &asked.after;
    for entry in &page.entries {
        name(&entry.name)?;
        if entry.name <= *last {
            return Err(violation("entries that are not in order"));
        }
        stat(&entry.stat)?;
        last = &entry.name;
    }
    Ok(())
}

pub(super) fn events(events: &Events) -> Result<(), SessionError> {
    if events.changes.is_empty() {
        return Err(violation("events of nothing"));
    }
    events.changes.iter().try_for_each(|change| match change {
        Change::Created(at) | Change::Modified(at) | Change::Deleted(at) => path(at),
        Change::Moved { from, to } => path(from).and_then(|()| path(to)),
        Change::Overflow | Change::Gone => Ok(()),
    })
}

fn path(path: &[u8]) -> Result<(), SessionError> {
    if path.len() > MAX_PATH_BYTES + MAX_NAME_BYTES {
        return Err(violation("a path that is too long"));
    }
    path.split(|byte| *byte == b'/').try_for_each(name)
}

fn name(name: &[u8]) -> Result<(), SessionError> {
    let bad = name.is_empty()
        || name.len() > MAX_NAME_BYTES
        || name == b"."
        || name == b".."
        || name.iter().any(|byte| matches!(byte, 0 | b'/'));
    if bad {
        return Err(violation("a name that no file can have"));
    }
    Ok(())
}
