//! The database: what must survive a restart, a crash and a power cut. SQLite with a write-ahead log,
//! flushed at each commit.
//!
//! ```text
//!   callers ──jobs──▶ one writer thread: all that wait in one transaction ──commit──▶ answers
//!   callers ──────▶ one reader, beside it
//! ```
//!
//! Nobody is answered before the commit that holds the change. Order is that of numbers and ids, never
//! that of the clock, which may jump.
//!
//! | File | Holds |
//! | --- | --- |
//! | `open.rs` | what is checked before a file is used |
//! | `writer.rs` | the writer thread |
//! | `runs.rs`, `keys.rs`, `usage.rs`, `audit.rs` | a table each |

mod audit;
mod keys;
mod open;
mod runs;
#[cfg(test)]
mod tests;
mod usage;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;

pub use audit::{AuditBroken, AuditRow, NewAudit};
pub use keys::KeyRow;
pub use open::OpenError;
pub use runs::{Inserted, RunFilter, RunRow};
pub use usage::{UsageRow, Used};
use writer::Writer;

/// Why something was not read or written. Nothing of it is in the database.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DbError {
    /// The disk is full.
    #[error("the disk with {} is full", path.display())]
    Full {
        /// The database.
        path: PathBuf,
    },
    /// SQLite refused.
    #[error("cannot use the database {}", path.display())]
    Sqlite {
        /// The database.
        path: PathBuf,
        /// Why.
        #[source]
        source: Arc<rusqlite::Error>,
    },
    /// The database was closed.
    #[error("the database is closed")]
    Closed,
}

/// An open database. Its clones are the same one.
#[derive(Clone)]
pub struct Db {
    /// Dropped first: the writer leaves the file without a log beside it if it is the last to close.
    reader: Arc<Mutex<Connection>>,
    writer: Arc<Writer>,
    path: Arc<Path>,
}

impl Db {
    /// Opens the database, or makes it. Holds it alone until the last clone is dropped.
    ///
    /// # Errors
    /// [`OpenError`]; a file that is refused is left as it is.
    pub fn open(path: &Path) -> Result<Db, OpenError> {
        let opened = open::open(path)?;
        Ok(Db {
            writer: Arc::new(Writer::start(opened.writer, opened.lock)),
            reader: Arc::new(Mutex::new(opened.reader)),
            path: path.into(),
        })
    }

    /// Changes something; it is on disk when this returns.
    async fn write<T, F>(&self, change: F) -> Result<T, DbError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let changed = self.writer.write(change).await;
        changed
            .ok_or(DbError::Closed)?
            .map_err(|error| self.error(error))
    }

    /// Reads something.
    async fn read<T, F>(&self, look: F) -> Result<T, DbError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let reader = Arc::clone(&self.reader);
        let reading = tokio::task::spawn_blocking(move || {
            look(&reader.lock().unwrap_or_else(PoisonError::into_inner))
        });
        let read = reading.await.map_err(|_| DbError::Closed)?;
        read.map_err(|error| self.error(Arc::new(error)))
    }

    fn error(&self, source: Arc<rusqlite::Error>) -> DbError {
        let path = self.path.to_path_buf();
        match source.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => DbError::Full { path },
            _ => DbError::Sqlite { path, source },
        }
    }
}
