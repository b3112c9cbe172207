//! The one thread that writes.
//!
//! It takes what waits in its queue into one transaction, so that writes that come together share an
//! fsync. Each job has a savepoint: one that fails is undone, and the others go on. Nobody is
//! answered before the commit.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::access::Writing;
use super::error::DbError;
use super::open::Lock;

/// Writes that wait; more callers wait for a place.
const QUEUE: usize = 1024;
/// Writes that share a transaction. By then the fsync is a small part of the time of each, and those
/// that came first have waited long enough.
const BATCH: usize = 256;

/// Told how long each transaction took.
pub(super) type Observer = Box<dyn Fn(Duration) + Send + Sync>;

pub(super) struct Writer {
    messages: mpsc::Sender<Message>,
    observer: Arc<OnceLock<Observer>>,
}

enum Message {
    Job(Box<dyn Job>),
    /// Dropped when the connection is closed.
    Stop(oneshot::Sender<()>),
}

impl Writer {
    /// The thread ends when this is dropped, or stopped; then it gives up the lock.
    pub(super) fn start(connection: Connection, lock: Lock) -> io::Result<Self> {
        let (messages, queue) = mpsc::channel(QUEUE);
        let observer = Arc::new(OnceLock::new());
        let observed = Arc::clone(&observer);
        thread::Builder::new()
            .name("database".to_owned())
            .spawn(move || {
                let stopped = serve(&connection, queue, &observed);
                // In this order: who gets the lock next finds the file closed.
                drop(connection);
                drop(lock);
                drop(stopped);
            })?;
        Ok(Self { messages, observer })
    }

    /// Tells this of each transaction from now on; only the first that asks is told.
    pub(super) fn observe(&self, observer: Observer) {
        // The second has nobody to tell.
        let _ = self.observer.set(observer);
    }

    pub(super) async fn write<T, F>(&self, work: F) -> Result<T, DbError>
    where
        T: Send + 'static,
        F: FnOnce(&Writing<'_>) -> Result<T, DbError> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let job = Box::new(Task {
            work: Some(work),
            result: None,
            answer,
        });
        let sent = self.messages.send(Message::Job(job)).await;
        sent.map_err(|_| DbError::Stopped)?;
        match answered.await {
            Ok(Ok(result)) => result,
            // Here, where the fault is: the thread has other callers.
            Ok(Err(panic)) => resume_unwind(panic),
            Err(_) => Err(DbError::Stopped),
        }
    }

    /// Waits for the writes before it, and until the file is closed.
    pub(super) async fn stop(&self) {
        let (stop, stopped) = oneshot::channel();
        if self.messages.send(Message::Stop(stop)).await.is_ok() {
            // It is dropped, never sent.
            let _ = stopped.await;
        }
    }
}

/// Until it is told to stop, or nobody can write any more.
fn serve(
    connection: &Connection,
    mut queue: mpsc::Receiver<Message>,
    observer: &OnceLock<Observer>,
) -> Option<oneshot::Sender<()>> {
    let mut batch = Vec::with_capacity(BATCH);
    let mut stop = None;
    while stop.is_none() {
        match queue.blocking_recv()? {
            Message::Job(job) => batch.push(job),
            Message::Stop(stopped) => return Some(stopped),
        }
        while batch.len() < BATCH && stop.is_none() {
            match queue.try_recv() {
                Ok(Message::Job(job)) => batch.push(job),
                Ok(Message::Stop(stopped)) => stop = Some(stopped),
                Err(_) => break,
            }
        }
        let start = Instant::now();
        carry_out(connection, &mut batch);
        if let Some(observer) = observer.get() {
            observer(start.elapsed());
        }
    }
    stop
}

/// Carries out all of the batch, in one transaction if none is lost.
fn carry_out(connection: &Connection, batch: &mut Vec<Box<dyn Job>>) {
    let mut waiting = batch.drain(..).peekable();
    while waiting.peek().is_some() {
        let mut ran = Vec::new();
        let committed = transaction(connection, &mut waiting, &mut ran);
        if ran.is_empty() {
            // It could not even begin: no other will.
            ran.extend(waiting.by_ref());
        }
        for job in ran {
            job.answer(&committed);
        }
    }
}

/// Runs jobs until there are no more, or the transaction is lost with all that ran in it.
fn transaction(
    connection: &Connection,
    waiting: &mut impl Iterator<Item = Box<dyn Job>>,
    ran: &mut Vec<Box<dyn Job>>,
) -> Result<(), DbError> {
    execute(connection, "BEGIN IMMEDIATE")?;
    let mut result = Ok(());
    for mut job in waiting {
        result = in_savepoint(connection, job.as_mut());
        ran.push(job);
        if result.is_err() {
            break;
        }
    }
    let result = result.and_then(|()| execute(connection, "COMMIT"));
    if result.is_err() && !connection.is_autocommit() {
        // If that fails too, so will the next BEGIN, and tell.
        let _ = execute(connection, "ROLLBACK");
    }
    result
}

/// Runs one job. An error is that of the whole transaction.
fn in_savepoint(connection: &Connection, job: &mut dyn Job) -> Result<(), DbError> {
    execute(connection, "SAVEPOINT job")?;
    match job.run(&Writing::new(connection)) {
        Ok(()) => {}
        // SQLite rolls back everything on some errors, such as a full disk.
        Err(error) if connection.is_autocommit() => return Err(error),
        Err(_) => execute(connection, "ROLLBACK TO job")?,
    }
    execute(connection, "RELEASE job")
}

fn execute(connection: &Connection, sql: &str) -> Result<(), DbError> {
    connection.prepare_cached(sql)?.execute([])?;
    Ok(())
}

/// A write of which only the thread knows when it is done.
trait Job: Send {
    /// Does it, and keeps the result.
    fn run(&mut self, transaction: &Writing<'_>) -> Result<(), DbError>;
    /// Answers the caller: with the result, if it was committed.
    fn answer(self: Box<Self>, committed: &Result<(), DbError>);
}

struct Task<F, T> {
    work: Option<F>,
    result: Option<Caught<T>>,
    answer: oneshot::Sender<Caught<T>>,
}
type Caught<T> = thread::Result<Result<T, DbError>>;

impl<F, T> Job for Task<F, T>
where
    T: Send,
    F: FnOnce(&Writing<'_>) -> Result<T, DbError> + Send,
{
    fn run(&mut self, transaction: &Writing<'_>) -> Result<(), DbError> {
        let Some(work) = self.work.take() else {
            return Ok(());
        };
        // What it changed in the database is undone, and it shares nothing else.
        let result = catch_unwind(AssertUnwindSafe(|| work(transaction)));
        let outcome = match &result {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.clone()),
            Err(_) => Err(DbError::Stopped),
        };
        self.result = Some(result);
        outcome
    }

    fn answer(self: Box<Self>, committed: &Result<(), DbError>) {
        let answer = match (self.result, committed) {
            (Some(Ok(Ok(_))), Err(error)) => Ok(Err(error.clone())),
            // Its own error says more than that of the transaction.
            (Some(result), _) => result,
            (None, Err(error)) => Ok(Err(error.clone())),
            (None, Ok(())) => Ok(Err(DbError::Stopped)),
        };
        // The caller may have left.
        let _ = self.answer.send(answer);
    }
}
