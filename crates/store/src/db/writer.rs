//! The writer thread: one connection, and all that waits in one transaction.
//!
//! A flush takes a fraction of a millisecond whatever it carries: by carrying all that wait, many
//! callers are served as fast as one. Each change is in a savepoint of its own, so that one that fails
//! takes no other with it.

use std::fs::File;
use std::sync::Arc;
use std::sync::mpsc as std_mpsc;
use std::thread::JoinHandle;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

/// Changes that may wait; who brings more waits.
const QUEUED: usize = 1024;
/// Most changes of one transaction: a bound on what one failed commit takes along.
const BATCH: usize = 512;

/// Told whether its change was committed.
type Answer = Box<dyn FnOnce(Option<Arc<rusqlite::Error>>) + Send>;
/// A change, and who is told; with the error, if it failed. It is not made where there is no
/// transaction for it.
type Job = Box<dyn FnOnce(Option<&Connection>) -> (Answer, Option<Arc<rusqlite::Error>>) + Send>;

pub(super) struct Writer {
    /// Taken when it is dropped: that ends the thread.
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts the thread, which owns the connection and the lock of the file.
    pub(super) fn start(connection: Connection, lock: File) -> Writer {
        let (jobs, waiting) = mpsc::channel(QUEUED);
        let thread = std::thread::Builder::new()
            .name("database".into())
            .spawn(move || {
                run(&connection, waiting);
                drop(connection);
                drop(lock);
            });
        Writer {
            jobs: Some(jobs),
            thread: thread.ok(),
        }
    }

    /// Makes a change; nothing, if the thread is gone.
    pub(super) async fn write<T, F>(&self, change: F) -> Option<Result<T, Arc<rusqlite::Error>>>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            let changed = connection.map(|connection| in_savepoint(connection, change));
            let changed = changed.map(|changed| changed.map_err(Arc::new));
            let error = changed.as_ref().and_then(|changed| changed.as_ref().err());
            let error = error.map(Arc::clone);
            let answer: Answer = Box::new(move |failed| {
                if let Some(told) = failed.map(Err).or(changed) {
                    // Who asked may have left; the change stands.
                    let _ = reply.send(told);
                }
            });
            (answer, error)
        });
        self.jobs.as_ref()?.send(job).await.ok()?;
        answer.await.ok()
    }
}

impl Drop for Writer {
    /// Waits for what was asked for before.
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // It panics in no way that we know; there is nobody left to tell.
            let _ = thread.join();
        }
    }
}

fn run(connection: &Connection, mut waiting: mpsc::Receiver<Job>) {
    let (answers, to_answer) = std_mpsc::channel::<(Vec<Answer>, Option<Arc<rusqlite::Error>>)>();
    // Waking those who wait takes longer than a flush: the next transaction does not wait for it.
    let answering = std::thread::Builder::new()
        .name("database-answers".into())
        .spawn(move || {
            for (batch, failed) in to_answer {
                for answer in batch {
                    answer(failed.clone());
                }
            }
        });
    while let Some(first) = waiting.blocking_recv() {
        let mut batch = Vec::new();
        let failed = transaction(connection, first, &mut waiting, &mut batch);
        if answers.send((batch, failed)).is_err() {
            return;
        }
    }
    drop(answers);
    if let Ok(answering) = answering {
        let _ = answering.join();
    }
}

/// One transaction of all that wait; the error, if it was not committed.
fn transaction(
    connection: &Connection,
    first: Job,
    waiting: &mut mpsc::Receiver<Job>,
    batch: &mut Vec<Answer>,
) -> Option<Arc<rusqlite::Error>> {
    if let Err(error) = connection.execute_batch("BEGIN IMMEDIATE") {
        batch.push(first(None).0);
        return Some(Arc::new(error));
    }
    let mut next = Some(first);
    while let Some(job) = next {
        let (answer, error) = job(Some(connection));
        batch.push(answer);
        if connection.is_autocommit() {
            // A full disk ends the whole transaction: whatever was in it is not there.
            return error;
        }
        next = (batch.len() < BATCH)
            .then(|| waiting.try_recv().ok())
            .flatten();
    }
    let error = connection.execute_batch("COMMIT").err()?;
    if !connection.is_autocommit()
        && let Err(error) = connection.execute_batch("ROLLBACK")
    {
        tracing::error!(%error, "a transaction that failed cannot be rolled back");
    }
    Some(Arc::new(error))
}

fn in_savepoint<T>(
    connection: &Connection,
    change: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    connection.execute_batch("SAVEPOINT change")?;
    let changed = change(connection);
    match &changed {
        Ok(_) => connection.execute_batch("RELEASE change")?,
        // A full disk may have ended the whole transaction by itself.
        Err(_) if connection.is_autocommit() => {}
        Err(_) => connection.execute_batch("ROLLBACK TO change; RELEASE change")?,
    }
    changed
}
