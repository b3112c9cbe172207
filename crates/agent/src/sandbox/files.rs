//! Files of sandboxes that fit a message: what is there, and what is changed.

use firelane_guest_proto::files::{
    Entry as Told, FileKind, FileStat, ListDirSpec, MAX_PAGE_ENTRIES, MakeDirSpec, MoveSpec,
    RemoveSpec,
};
use firelane_wire::bus::{ListFolder, MakeFolder, MoveFile, RemoveFile, StatFile};
use firelane_wire::content::{base64, text};
use firelane_wire::file::{Entry, EntryKind, Folder};
use firelane_wire::problem::Problem;
use jiff::Timestamp;

use crate::Agent;
use crate::problem::from_session;

/// Permission bits of folders that are made.
const FOLDER_MODE: u32 = 0o755;

impl Agent {
    /// What is at a path.
    pub(crate) async fn stat_file(&self, call: StatFile) -> Result<Entry, Problem> {
        let using = self.sandboxes.find(&call.sandbox)?.begin(None).await?;
        let stat = using.session.stat(&call.path).await;
        let stat = stat.map_err(|error| from_session(&error))?;
        Ok(entry(last(&call.path).as_bytes(), stat))
    }

    /// A page of a folder.
    pub(crate) async fn list_folder(&self, call: ListFolder) -> Result<Folder, Problem> {
        let using = self.sandboxes.find(&call.sandbox)?.begin(None).await?;
        let spec = ListDirSpec {
            path: call.path,
            after: call.after,
            limit: call.limit.clamp(1, MAX_PAGE_ENTRIES),
        };
        let page = using.session.list_dir(&spec).await;
        let page = page.map_err(|error| from_session(&error))?;
        let last = page.entries.last().filter(|_| page.more);
        let next_cursor = last.map(|entry| base64(&entry.name));
        let entries = page.entries.into_iter();
        Ok(Folder {
            entries: entries
                .map(|Told { name, stat }| entry(&name, stat))
                .collect(),
            next_cursor,
        })
    }

    /// Makes a folder.
    pub(crate) async fn make_folder(&self, call: MakeFolder) -> Result<(), Problem> {
        let using = self.sandboxes.find(&call.sandbox)?.begin(None).await?;
        let spec = MakeDirSpec {
            path: call.path,
            mode: FOLDER_MODE,
            parents: true,
        };
        let made = using.session.make_dir(&spec).await;
        made.map_err(|error| from_session(&error))
    }

    /// Gives something another path.
    pub(crate) async fn move_file(&self, call: MoveFile) -> Result<(), Problem> {
        call.request.check()?;
        let using = self.sandboxes.find(&call.sandbox)?.begin(None).await?;
        let spec = MoveSpec {
            from: call.request.from,
            to: call.request.to,
            replace: call.request.overwrite,
        };
        let moved = using.session.move_to(&spec).await;
        moved.map_err(|error| from_session(&error))
    }

    /// Removes something.
    pub(crate) async fn remove_file(&self, call: RemoveFile) -> Result<(), Problem> {
        let using = self.sandboxes.find(&call.sandbox)?.begin(None).await?;
        let spec = RemoveSpec {
            path: call.path,
            recursive: call.recursive,
        };
        let removed = using.session.remove(&spec).await;
        removed.map_err(|error| from_session(&error))
    }
}

/// The last name of a path.
pub(super) fn last(path: &str) -> &str {
    let path = path.trim_end_matches('/');
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

/// An entry as it is told.
pub(super) fn entry(name: &[u8], stat: FileStat) -> Entry {
    let (name, name_base64) = text(name.to_vec());
    let is_link = stat.kind == FileKind::Link;
    let modified = Timestamp::from_nanosecond(stat.mtime_ns.into());
    Entry {
        name,
        name_base64,
        kind: match stat.kind {
            FileKind::File => EntryKind::File,
            FileKind::Folder => EntryKind::Folder,
            FileKind::Link => EntryKind::Link,
            FileKind::Other => EntryKind::Other,
        },
        size: stat.size,
        mode: stat.mode,
        // 64 bits of nanoseconds are within what a time can be.
        modified_at: modified.unwrap_or(Timestamp::UNIX_EPOCH).to_string(),
        target: is_link.then(|| text(stat.target).0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_tells_its_name_whatever_its_bytes() {
        let stat = |kind, target: &[u8]| FileStat {
            kind,
            size: 5,
            mode: 0o644,
            mtime_ns: 1_000_000_000,
            target: target.to_vec(),
        };
        let told = entry(b"a\xff", stat(FileKind::File, b""));
        assert_eq!(told.name, "a\u{fffd}");
        assert_eq!(told.name_base64.as_deref(), Some("Yf8="));
        assert_eq!(told.modified_at, "1970-01-01T00:00:01Z");
        assert_eq!(told.target, None);
        let told = entry(b"l", stat(FileKind::Link, b"../x"));
        assert_eq!(told.name_base64, None);
        assert_eq!(told.target.as_deref(), Some("../x"));
    }

    #[test]
    fn a_path_has_a_last_name() {
        assert_eq!(last("/work/a/b"), "b");
        assert_eq!(last("/work/a/"), "a");
        assert_eq!(last("a"), "a");
    }
}
