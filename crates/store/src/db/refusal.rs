//! Why a database is not opened.

use std::io;
use std::path::{Path, PathBuf};

/// Why a database is not opened. The file is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process of ours has it.
    #[error("{} is in use by another process of Firelane", path.display())]
    InUse {
        /// The database.
        path: PathBuf,
    },
    /// Another program holds SQLite's own lock on it.
    #[error("{} is locked by another program", path.display())]
    Locked {
        /// The database.
        path: PathBuf,
        /// What SQLite says.
        #[source]
        source: rusqlite::Error,
    },
    /// It is something else.
    #[error("{} is not a database of Firelane: {found}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        found: String,
    },
    /// It is damaged.
    #[error("{} is damaged: {finding}", path.display())]
    Damaged {
        /// The database.
        path: PathBuf,
        /// The first fault found.
        finding: String,
    },
    /// A later Firelane wrote it.
    #[error("{} has version {found}, this Firelane knows versions up to {known}", path.display())]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The last one known here.
        known: i64,
    },
    /// A file cannot be read, made or locked.
    #[error("{step} {}", path.display())]
    File {
        /// What was being done.
        step: &'static str,
        /// To which file or folder.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// SQLite cannot open, make or convert it.
    #[error("{step} {}", path.display())]
    Sqlite {
        /// What was being done.
        step: &'static str,
        /// The database.
        path: PathBuf,
        /// What SQLite says.
        #[source]
        source: rusqlite::Error,
    },
}

impl OpenError {
    pub(super) fn file(step: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        Self::File { step, path, source }
    }

    pub(super) fn thread(path: &Path, source: io::Error) -> Self {
        Self::file("start the writer of", path, source)
    }

    pub(super) fn sqlite(step: &'static str, path: &Path, source: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode;
        let path = path.to_owned();
        match source.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                Self::Locked { path, source }
            }
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Damaged {
                path,
                finding: source.to_string(),
            },
            _ => Self::Sqlite { step, path, source },
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self {
            Self::InUse { path } => format!(
                "stop the other process, or give this one a database of its own; `fuser {}.lock` names it",
                path.display()
            ),
            Self::Locked { path, .. } => format!(
                "end the program that has it open; `fuser {}` names it",
                path.display()
            ),
            Self::Foreign { path, .. } => format!(
                "name another file for the database, or move {} away; it was not touched",
                path.display()
            ),
            Self::Damaged { path, .. } => {
                let path = path.display();
                format!(
                    "move {path}, {path}-wal and {path}-shm away together and put a backup in their place, \
                     or start without to have a new database; `sqlite3 {path} .recover` may save what is in it"
                )
            }
            Self::Newer { .. } => "start the Firelane that wrote it, or a later one".to_owned(),
            Self::File { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                "free some space on that file system".to_owned()
            }
            Self::File { path, .. } | Self::Sqlite { path, .. } => format!(
                "see that the folder of {} exists, has space, and that this user may write to it",
                path.display()
            ),
        }
    }
}
