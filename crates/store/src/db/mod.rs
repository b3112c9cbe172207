//! The database of a service: one SQLite file.
//!
//! ```text
//!   write(job) ──> [ queue ] ──> writer thread: one transaction for all that waits,
//!                                a savepoint for each ──> commit, fsync ──> answers
//!   read(job) ───> one of a few connections that only read, on a blocking thread
//! ```
//!
//! A write that was answered survives a crash and a power cut (WAL, synchronous FULL). A write that
//! failed changed nothing, except that after [`DbError::Failed`] and [`DbError::Full`] of a commit a crash may
//! yet bring it back. A write whose future is dropped is carried out all the same.
//!
//! Rows are ordered by sequence numbers that the database gives, runs by their ids, never by time: a clock that jumps
//! changes what a record says, and nothing else. Times are milliseconds since 1970, and come in as
//! arguments. Columns of JSON are text that is not interpreted here.
//!
//! One process has the file at a time, held by a lock on `<path>.lock`. A file that is not ours, is damaged, is
//! newer or is in use is refused by [`Db::open`] and left as it is.

mod access;
mod check;
mod error;
mod open;
mod page;
mod readers;
mod refusal;
mod schema;
mod writer;

mod audit;
mod idempotency;
mod keys;
mod runs;
mod sandboxes;
mod snapshots;
mod usage;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub use access::{Reading, Writing};
pub use audit::{AuditEntry, AuditFault, AuditHead, AuditRow, AuditVerdict, MAX_DETAIL_BYTES};
pub use check::{MAX_BLOB_BYTES, MAX_ID_BYTES, MAX_JSON_BYTES, MAX_SHORT_BYTES, MAX_TENANT_BYTES};
pub use error::{Class, DbError};
pub use idempotency::{KeptAnswer, MAX_IDEMPOTENCY_KEY_BYTES, Reservation, Reserved};
pub use keys::Key;
pub use page::{Cursor, MAX_PAGE, Page, PageOf};
pub use refusal::OpenError;
pub use runs::{
    Finish, MAX_ABOUT_BYTES, MAX_OUTCOME_BYTES, MAX_RUN_OUTPUT_BYTES, NewRun, OutputPart, Run,
    RunEnd, RunHead, RunKey, RunState, Swap,
};
pub use sandboxes::{Labels, MAX_LABELS, Sandbox, SandboxChange, SandboxUpdate};
pub use snapshots::Snapshot;
pub use usage::{MAX_USAGE_DAYS, Usage, UsageOfDay, day_of};

use readers::Readers;
use writer::Writer;

/// An open database. Clones are the same one.
#[derive(Clone)]
pub struct Db {
    inner: Arc<Inner>,
}

struct Inner {
    readers: Readers,
    writer: Writer,
}

impl Db {
    /// Opens the database, or creates it. Reads all of it once, to see that it is whole.
    pub async fn open(path: &Path) -> Result<Self, OpenError> {
        let path = path.to_owned();
        let opening = tokio::task::spawn_blocking(move || {
            let opened = open::open(&path)?;
            let readers = Readers::new(opened.readers);
            let writer = Writer::start(opened.writer, opened.lock)
                .map_err(|source| OpenError::thread(&path, source))?;
            let inner = Arc::new(Inner { readers, writer });
            Ok(Self { inner })
        });
        match opening.await {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }

    /// Reads, by a view that does not change while `work` looks at it. `work` blocks a thread, so it
    /// does nothing but read.
    pub async fn read<T, F>(&self, work: F) -> Result<T, DbError>
    where
        T: Send + 'static,
        F: FnOnce(&Reading<'_>) -> Result<T, DbError> + Send + 'static,
    {
        self.inner.readers.read(work).await
    }

    /// Changes what `work` changes, all of it or nothing, and returns when that is on disk. An error of
    /// `work` undoes it. `work` holds up every other write, so it does nothing but write.
    pub async fn write<T, F>(&self, work: F) -> Result<T, DbError>
    where
        T: Send + 'static,
        F: FnOnce(&Writing<'_>) -> Result<T, DbError> + Send + 'static,
    {
        self.inner.writer.write(work).await
    }

    /// Has this told how long each transaction took, answers to its callers included; only the first
    /// that asks is. It holds up the next transaction.
    pub fn on_commit(&self, observer: impl Fn(Duration) + Send + Sync + 'static) {
        self.inner.writer.observe(Box::new(observer));
    }

    /// Carries out what waits, closes the file and gives up its lock. What comes later is refused with
    /// [`DbError::Stopped`]. Without it the same happens some time after the last clone is dropped.
    pub async fn close(&self) {
        self.inner.readers.close().await;
        self.inner.writer.stop().await;
    }
}
