//! Connections that only read.

use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::access::Reading;
use super::error::DbError;

/// How many reads run at once: readers do not wait for the writer, and short reads seldom for the
/// disk, so a few keep small machines busy. Each has a page cache of its own.
pub(super) const READERS: usize = 4;

pub(super) struct Readers {
    /// One permit for each connection that is idle. Closed when the database is.
    turns: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<Connection>>>,
}

impl Readers {
    pub(super) fn new(connections: Vec<Connection>) -> Self {
        Self {
            turns: Arc::new(Semaphore::new(connections.len())),
            idle: Arc::new(Mutex::new(connections)),
        }
    }

    pub(super) async fn read<T, F>(&self, work: F) -> Result<T, DbError>
    where
        T: Send + 'static,
        F: FnOnce(&Reading<'_>) -> Result<T, DbError> + Send + 'static,
    {
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        let turn = turn.map_err(|_| DbError::Stopped)?;
        let idle = Arc::clone(&self.idle);
        let reading = tokio::task::spawn_blocking(move || {
            let borrowed = Borrowed::from(&idle);
            let result = borrowed.read(work);
            drop(borrowed);
            // Now that the connection is idle.
            drop(turn);
            result
        });
        match reading.await {
            Ok(result) => result,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // The runtime ends.
            Err(_) => Err(DbError::Stopped),
        }
    }

    /// Waits for those that read, and closes all connections.
    pub(super) async fn close(&self) {
        let all = u32::try_from(READERS).unwrap_or(u32::MAX);
        if let Ok(turns) = self.turns.acquire_many(all).await {
            turns.forget();
            self.turns.close();
            lock(&self.idle).clear();
        }
    }
}

/// A connection, until it is dropped.
struct Borrowed<'p> {
    connection: Option<Connection>,
    idle: &'p Mutex<Vec<Connection>>,
}

impl<'p> Borrowed<'p> {
    fn from(idle: &'p Mutex<Vec<Connection>>) -> Self {
        let connection = lock(idle).pop();
        Self { connection, idle }
    }

    fn read<T>(&self, work: impl FnOnce(&Reading<'_>) -> Result<T, DbError>) -> Result<T, DbError> {
        let connection = self.connection.as_ref().ok_or(DbError::Stopped)?;
        // Statements of one transaction see one state. It changes nothing, so that it is rolled back
        // in the end is the cheapest way to end it.
        let view = connection.unchecked_transaction()?;
        work(&Reading::new(&view))
    }
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            lock(self.idle).push(connection);
        }
    }
}

// Nothing panics while it holds the lock, so what is behind a poisoned one is whole.
fn lock(idle: &Mutex<Vec<Connection>>) -> std::sync::MutexGuard<'_, Vec<Connection>> {
    idle.lock().unwrap_or_else(PoisonError::into_inner)
}
