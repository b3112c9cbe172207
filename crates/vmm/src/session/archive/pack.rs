//! A folder of the guest read as an archive.

use std::collections::VecDeque;

use firelane_guest_proto::files::{
    Entry, FileKind, GetRangeSpec, ListDirSpec, MAX_PAGE_ENTRIES, MAX_PATH_BYTES,
};
use firelane_guest_proto::message::RefusedCode;
use tar::EntryType;
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::header::{filling, header};
use super::plan::EntryProblem;
use super::{ArchiveLimits, BLOCK, Taken, in_folder, shown};
use crate::session::files::Get;
use crate::session::{Session, SessionError};

/// Files that are asked for before their turn: each may wait here with its first bytes.
const AHEAD: usize = 8;

/// What an archive holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    /// Files, folders and links.
    pub entries: u64,
    /// Bytes of the files.
    pub bytes: u64,
    /// Pipes, sockets and devices, and files that went away meanwhile: left out.
    pub skipped: u64,
}

/// Why a folder was not packed to its end. What was written of the archive is of no use.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// The archive could not be written.
    #[error("the archive cannot be written")]
    Sink(#[source] std::io::Error),
    /// Something cannot be in an archive.
    #[error("'{entry}' cannot be packed")]
    Entry {
        /// Its path in the folder.
        entry: String,
        /// Why.
        #[source]
        source: EntryProblem,
    },
    /// The guest did not give an entry.
    #[error("'{entry}' cannot be read")]
    Guest {
        /// Its path in the folder.
        entry: String,
        /// Why.
        #[source]
        source: SessionError,
    },
}

impl Session {
    /// Writes what a folder holds as a tar archive: files, folders and links, which are not followed.
    /// The folder is read as it changes: each file is as it was at some moment, not all at one.
    ///
    /// # Errors
    /// [`PackError`].
    pub async fn pack(
        &self,
        folder: &str,
        limits: &ArchiveLimits,
        archive: impl AsyncWrite + Unpin,
    ) -> Result<Packed, PackError> {
        let mut work = Work {
            session: self,
            folder,
            limits,
            archive,
            waiting: VecDeque::new(),
            taken: Taken::default(),
            packed: Packed::default(),
        };
        work.all().await?;
        while work.write_next().await? {}
        work.write(&[0; 2 * BLOCK]).await?;
        work.archive.flush().await.map_err(PackError::Sink)?;
        Ok(work.packed)
    }
}

struct Work<'a, W> {
    session: &'a Session,
    folder: &'a str,
    limits: &'a ArchiveLimits,
    archive: W,
    /// Files that were asked for, with their paths.
    waiting: VecDeque<(String, Get)>,
    taken: Taken,
    packed: Packed,
}

impl<W: AsyncWrite + Unpin> Work<'_, W> {
    /// Goes through the folder; a folder is written before what it holds.
    async fn all(&mut self) -> Result<(), PackError> {
        let mut folders = vec![String::new()];
        while let Some(folder) = folders.pop() {
            let mut after = Vec::new();
            loop {
                let spec = ListDirSpec {
                    path: in_folder(self.folder, &folder),
                    after,
                    limit: MAX_PAGE_ENTRIES,
                };
                let page = match self.session.list_dir(&spec).await {
                    Ok(page) => page,
                    // It is in the archive already, and stays there as an empty one.
                    Err(error) if went_away(&error) && !folder.is_empty() => break,
                    Err(source) => return Err(guest(&folder, source)),
                };
                for entry in &page.entries {
                    let path = path(&folder, entry)?;
                    if entry.stat.kind == FileKind::Folder {
                        folders.push(path.clone());
                    }
                    self.entry(path, entry).await?;
                }
                match page.entries.last() {
                    Some(last) if page.more => after = last.name.clone(),
                    _ => break,
                }
            }
        }
        Ok(())
    }

    async fn entry(&mut self, path: String, entry: &Entry) -> Result<(), PackError> {
        let stat = &entry.stat;
        let (kind, name) = match stat.kind {
            FileKind::Folder => (EntryType::Directory, format!("{path}/")),
            FileKind::Link => (EntryType::Symlink, path.clone()),
            FileKind::File => {
                if self.waiting.len() >= AHEAD {
                    self.write_next().await?;
                }
                let spec = GetRangeSpec {
                    path: in_folder(self.folder, &path),
                    offset: 0,
                    length: u64::MAX,
                };
                let get = self.session.range_ahead(&spec).await;
                let get = get.map_err(|source| guest(&path, source))?;
                self.waiting.push_back((path, get));
                return Ok(());
            }
            FileKind::Other => return self.skip(&path),
        };
        self.take(&path, 0)?;
        let described = (stat.mode, 0, stat.mtime_ns);
        let header = header(kind, name.as_bytes(), &stat.target, described);
        self.write(&header).await
    }

    /// Writes the file whose turn it is, if there is one.
    async fn write_next(&mut self) -> Result<bool, PackError> {
        let Some((path, mut get)) = self.waiting.pop_front() else {
            return Ok(false);
        };
        let stat = match get.range_info().await {
            Ok(stat) => stat,
            Err(error) if went_away(&error) => {
                self.skip(&path)?;
                return Ok(true);
            }
            Err(source) => return Err(guest(&path, source)),
        };
        self.take(&path, stat.size)?;
        let described = (stat.mode, stat.size, stat.mtime_ns);
        let header = header(EntryType::Regular, path.as_bytes(), b"", described);
        self.write(&header).await?;
        let got = get.finish(stat.size, &mut self.archive).await;
        got.map_err(|error| match error {
            SessionError::HostFile { reason } => PackError::Sink(std::io::Error::other(reason)),
            source => guest(&path, source),
        })?;
        self.write(&[0; BLOCK][..filling(stat.size)]).await?;
        Ok(true)
    }

    /// What is left out counts all the same: it is work, too.
    fn skip(&mut self, path: &str) -> Result<(), PackError> {
        self.packed.skipped += 1;
        self.take(path, 0)
    }

    fn take(&mut self, path: &str, bytes: u64) -> Result<(), PackError> {
        let taken = self.taken.take(bytes, self.limits);
        taken.map_err(|source| refused(path.as_bytes(), source))?;
        self.packed.entries = self.taken.entries - self.packed.skipped;
        self.packed.bytes = self.taken.bytes;
        Ok(())
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), PackError> {
        let written = self.archive.write_all(bytes).await;
        written.map_err(PackError::Sink)
    }
}

/// The path of an entry, as the guest's paths have to be.
fn path(folder: &str, entry: &Entry) -> Result<String, PackError> {
    let name =
        str::from_utf8(&entry.name).map_err(|_| refused(&entry.name, EntryProblem::NotUtf8))?;
    let path = if folder.is_empty() {
        name.into()
    } else {
        in_folder(folder, name)
    };
    if path.len() >= MAX_PATH_BYTES {
        return Err(refused(path.as_bytes(), EntryProblem::TooLong));
    }
    Ok(path)
}

/// Whether the guest no longer has what it has just listed.
fn went_away(error: &SessionError) -> bool {
    let SessionError::Refused(refused) = error else {
        return false;
    };
    // Invalid and confined: something else has the name by now, such as a link.
    matches!(
        refused.code,
        RefusedCode::NotFound | RefusedCode::Invalid | RefusedCode::Confined
    )
}

fn refused(entry: &[u8], source: EntryProblem) -> PackError {
    PackError::Entry {
        entry: shown(entry),
        source,
    }
}

fn guest(entry: &str, source: SessionError) -> PackError {
    PackError::Guest {
        entry: shown(entry.as_bytes()),
        source,
    }
}
