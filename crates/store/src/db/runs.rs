//! Runs, and the idempotency keys that name them.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::usage::{self, Used};
use super::{Db, DbError};

/// A run as it is kept. What it means is the coordinator's business.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunRow {
    /// Its name; later ones sort later.
    pub id: String,
    /// Whose it is.
    pub tenant: String,
    /// Who asked, as JSON.
    pub caller: String,
    /// Its state.
    pub state: String,
    /// What it is, as JSON.
    pub about: String,
    /// What to run, as JSON, until it is over.
    pub request: Option<String>,
    /// Why it failed, as JSON.
    pub problem: Option<String>,
    /// When it was asked for.
    pub created_us: i64,
    /// When a host got it.
    pub started_us: Option<i64>,
    /// When it was over.
    pub finished_us: Option<i64>,
}

/// Which runs of a tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunFilter {
    /// Whose.
    pub tenant: String,
    /// Only those in this state.
    pub state: Option<String>,
    /// Only those that sort before this one.
    pub before: Option<String>,
    /// Most rows.
    pub limit: u32,
}

/// What became of a run that was to be inserted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// It is there.
    New,
    /// Its idempotency key belongs to this run, which asked for the same.
    Same(String),
    /// Its idempotency key belongs to a run that asked for something else.
    Other,
}

const COLUMNS: &str =
    "id, tenant, caller, state, about, request, problem, created_us, started_us, finished_us";

fn row(row: &Row<'_>) -> rusqlite::Result<RunRow> {
    Ok(RunRow {
        id: row.get(0)?,
        tenant: row.get(1)?,
        caller: row.get(2)?,
        state: row.get(3)?,
        about: row.get(4)?,
        request: row.get(5)?,
        problem: row.get(6)?,
        created_us: row.get(7)?,
        started_us: row.get(8)?,
        finished_us: row.get(9)?,
    })
}

fn put(connection: &Connection, run: &RunRow, log: Option<&[u8]>) -> rusqlite::Result<()> {
    let sql = format!(
        "INSERT OR REPLACE INTO runs ({COLUMNS}, log) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    statement.execute(params![
        run.id,
        run.tenant,
        run.caller,
        run.state,
        run.about,
        run.request,
        run.problem,
        run.created_us,
        run.started_us,
        run.finished_us,
        log,
    ])?;
    Ok(())
}

impl Db {
    /// Inserts a run, unless its idempotency key (and the hash of what was asked for) names one.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn insert_run(
        &self,
        run: RunRow,
        idempotency: Option<(String, [u8; 32])>,
    ) -> Result<Inserted, DbError> {
        self.write(move |connection| {
            if let Some((key, fingerprint)) = &idempotency {
                let mut find = connection.prepare_cached(
                    "SELECT run, fingerprint FROM idempotency WHERE tenant = ?1 AND key = ?2",
                )?;
                let found: Option<(String, Vec<u8>)> = find
                    .query_row((&run.tenant, key), |row| Ok((row.get(0)?, row.get(1)?)))
                    .optional()?;
                match found {
                    Some((id, known)) if known == fingerprint => return Ok(Inserted::Same(id)),
                    Some(_) => return Ok(Inserted::Other),
                    None => {}
                }
                connection.execute(
                    "INSERT INTO idempotency (tenant, key, fingerprint, run, created_us) VALUES (?1, ?2, ?3, ?4, ?5)",
                    (&run.tenant, key, &fingerprint[..], &run.id, run.created_us),
                )?;
            }
            put(connection, &run, None)?;
            Ok(Inserted::New)
        })
        .await
    }

    /// Marks a run as given to a host; `false` if it is not queued any more.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn start_run(&self, id: String, now_us: i64) -> Result<bool, DbError> {
        self.write(move |connection| {
            let mut statement = connection.prepare_cached(
                "UPDATE runs SET state = 'running', started_us = ?2 WHERE id = ?1 AND state = 'queued'",
            )?;
            Ok(statement.execute((id, now_us))? == 1)
        })
        .await
    }

    /// Writes a run that is over, with its log and what it used.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn finish_run(&self, run: RunRow, log: Vec<u8>, used: Used) -> Result<(), DbError> {
        self.write(move |connection| {
            put(connection, &run, Some(&log))?;
            usage::add(connection, &used)
        })
        .await
    }

    /// A run.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn run(&self, id: String) -> Result<Option<RunRow>, DbError> {
        self.read(move |connection| {
            let sql = format!("SELECT {COLUMNS} FROM runs WHERE id = ?1");
            connection
                .prepare_cached(&sql)?
                .query_row([id], row)
                .optional()
        })
        .await
    }

    /// The log of a run that is over.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn run_log(&self, id: String) -> Result<Option<Vec<u8>>, DbError> {
        self.read(move |connection| {
            let mut statement = connection.prepare_cached("SELECT log FROM runs WHERE id = ?1")?;
            let log: Option<Option<Vec<u8>>> =
                statement.query_row([id], |row| row.get(0)).optional()?;
            Ok(log.flatten())
        })
        .await
    }

    /// Runs of a tenant, newest first.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn runs(&self, filter: RunFilter) -> Result<Vec<RunRow>, DbError> {
        self.read(move |connection| {
            let sql = format!(
                "SELECT {COLUMNS} FROM runs
                 WHERE tenant = ?1 AND (?2 IS NULL OR state = ?2) AND (?3 IS NULL OR id < ?3)
                 ORDER BY id DESC LIMIT ?4"
            );
            let mut statement = connection.prepare_cached(&sql)?;
            let RunFilter {
                tenant,
                state,
                before,
                limit,
            } = filter;
            statement
                .query_map((tenant, state, before, limit), row)?
                .collect()
        })
        .await
    }

    /// Runs that are queued or running, oldest first.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn unfinished_runs(&self) -> Result<Vec<RunRow>, DbError> {
        self.read(|connection| {
            let sql = format!(
                "SELECT {COLUMNS} FROM runs WHERE state IN ('queued', 'running') ORDER BY id"
            );
            connection.prepare(&sql)?.query_map([], row)?.collect()
        })
        .await
    }

    /// Removes runs that ended before this moment, at most `limit`, and idempotency keys as old.
    /// Gives how many runs.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn prune_runs(&self, before_us: i64, limit: u32) -> Result<usize, DbError> {
        self.write(move |connection| {
            connection.execute("DELETE FROM idempotency WHERE created_us < ?1", [before_us])?;
            connection.execute(
                "DELETE FROM runs WHERE id IN
                    (SELECT id FROM runs WHERE finished_us < ?1 ORDER BY finished_us LIMIT ?2)",
                (before_us, limit),
            )
        })
        .await
    }
}
