//! An archive written into a folder of the guest.

use std::collections::VecDeque;

use firelane_guest_proto::files::{MakeDirSpec, MakeLinkSpec};
use firelane_guest_proto::frame::{Kind, MAX_DATA_BYTES};
use firelane_guest_proto::message::PutSpec;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::plan::{EntryProblem, Step, plan};
use super::reader::{RawEntry, ReadError, Reader};
use super::{ArchiveLimits, Taken, in_folder, shown};
use crate::session::files::{bounded, done};
use crate::session::{Session, SessionError, Stream};

/// Requests that are under way at once: enough that none waits for a round trip, and a quarter of the
/// streams that a session may have.
const IN_FLIGHT: usize = 16;

/// What an archive held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Entries written.
    pub entries: u64,
    /// Bytes of their files.
    pub bytes: u64,
}

/// Why an archive was not unpacked to its end. Entries that were written stay.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The archive could not be read.
    #[error("the archive cannot be read after {written} entries")]
    Source {
        /// Entries written.
        written: u64,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// What was read is not an archive.
    #[error("the archive is malformed after {written} entries: {what}")]
    Malformed {
        /// Entries written.
        written: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// An entry is not one that is unpacked.
    #[error("entry '{entry}' of the archive is refused; {written} entries are written")]
    Entry {
        /// Its name.
        entry: String,
        /// Entries written.
        written: u64,
        /// Why.
        #[source]
        source: EntryProblem,
    },
    /// The guest did not write an entry.
    #[error("entry '{entry}' of the archive cannot be written; {written} entries are")]
    Guest {
        /// Its name.
        entry: String,
        /// Entries written.
        written: u64,
        /// Why.
        #[source]
        source: SessionError,
    },
}

/// Why the work ended, before it is known what was written.
enum Stop {
    Read(ReadError),
    Entry(String, EntryProblem),
    Guest(String, SessionError),
}

impl From<ReadError> for Stop {
    fn from(error: ReadError) -> Stop {
        Stop::Read(error)
    }
}

impl Session {
    /// Writes the entries of a tar archive into a folder, which is made if it is missing. Entries
    /// that leave the folder, and what is neither file, folder nor symbolic link, are refused.
    ///
    /// # Errors
    /// [`UnpackError`], with what was written before.
    pub async fn unpack(
        &self,
        folder: &str,
        limits: &ArchiveLimits,
        archive: impl AsyncRead + Unpin,
    ) -> Result<Unpacked, UnpackError> {
        let mut work = Work {
            session: self,
            folder,
            under_way: VecDeque::new(),
            written: 0,
        };
        let mut taken = Taken::default();
        let mut stopped = work.all(limits, &mut taken, archive).await.err();
        // What is under way may still be written: it is counted in any case.
        while !work.under_way.is_empty() {
            let settled = work.settle().await;
            stopped = stopped.or(settled.err());
        }
        let written = work.written;
        match stopped {
            None => Ok(Unpacked {
                entries: written,
                bytes: taken.bytes,
            }),
            Some(Stop::Read(ReadError::Io(source))) => Err(UnpackError::Source { written, source }),
            Some(Stop::Read(ReadError::Malformed(what))) => {
                Err(UnpackError::Malformed { written, what })
            }
            Some(Stop::Entry(entry, source)) => Err(UnpackError::Entry {
                entry,
                written,
                source,
            }),
            Some(Stop::Guest(entry, source)) => Err(UnpackError::Guest {
                entry,
                written,
                source,
            }),
        }
    }
}

struct Work<'a> {
    session: &'a Session,
    folder: &'a str,
    /// Requests that the guest has not answered, oldest first, with the names of their entries.
    under_way: VecDeque<(String, Stream)>,
    written: u64,
}

impl Work<'_> {
    async fn all(
        &mut self,
        limits: &ArchiveLimits,
        taken: &mut Taken,
        archive: impl AsyncRead + Unpin,
    ) -> Result<(), Stop> {
        let root = MakeDirSpec {
            path: self.folder.into(),
            mode: 0o755,
            parents: true,
        };
        let made = self.session.make_dir(&root).await;
        made.map_err(|error| Stop::Guest(".".into(), error))?;
        let mut reader = Reader::new(archive);
        while let Some(entry) = reader.next().await? {
            let refused = |problem| Stop::Entry(shown(&entry.name), problem);
            let step = plan(&entry).map_err(refused)?;
            let bytes = if let Step::File { size, .. } = step {
                size
            } else {
                0
            };
            taken.take(bytes, limits).map_err(refused)?;
            self.write(step, &entry, &mut reader).await?;
        }
        Ok(())
    }

    async fn write<R: AsyncRead + Unpin>(
        &mut self,
        step: Step,
        entry: &RawEntry,
        reader: &mut Reader<R>,
    ) -> Result<(), Stop> {
        let (session, folder) = (self.session, self.folder);
        let stopped = |error| Stop::Guest(shown(&entry.name), error);
        if self.under_way.len() >= IN_FLIGHT {
            self.settle().await?;
        }
        let stream = match step {
            Step::Nothing => return Ok(()),
            Step::Folder { path, mode } => {
                let path = in_folder(folder, &path);
                let parents = true;
                let spec = MakeDirSpec {
                    path,
                    mode,
                    parents,
                };
                session.ahead(Kind::MakeDir, &spec).await
            }
            Step::Link { path, target } => {
                let path = in_folder(folder, &path);
                let replace = true;
                let spec = MakeLinkSpec {
                    path,
                    target,
                    replace,
                };
                session.ahead(Kind::MakeLink, &spec).await
            }
            Step::File { path, mode, size } => {
                let path = in_folder(folder, &path);
                let spec = PutSpec { path, mode, size };
                let mut content = reader.content(size);
                if size > MAX_DATA_BYTES as u64 {
                    // As long as it takes to send, none of the others needs to be waited for.
                    let put = session.put(&spec, &mut content).await;
                    let put = put.map_err(|error| match error {
                        SessionError::HostFile { reason } => {
                            Stop::Read(ReadError::Io(std::io::Error::other(reason)))
                        }
                        error => stopped(error),
                    });
                    self.written += u64::from(put.is_ok());
                    return put;
                }
                let mut bytes = Vec::new();
                let read = content.read_to_end(&mut bytes).await;
                read.map_err(ReadError::Io)?;
                if bytes.len() as u64 != size {
                    return Err(ReadError::Malformed("it ends within an entry").into());
                }
                session.put_ahead(&spec, &bytes).await
            }
        };
        let stream = stream.map_err(stopped)?;
        self.under_way.push_back((shown(&entry.name), stream));
        Ok(())
    }

    /// Waits for the answer to the oldest request.
    async fn settle(&mut self) -> Result<(), Stop> {
        let Some((entry, mut stream)) = self.under_way.pop_front() else {
            return Ok(());
        };
        let settled = bounded(0, done(&mut stream)).await;
        settled.map_err(|error| Stop::Guest(entry, error))?;
        self.written += 1;
        Ok(())
    }
}
