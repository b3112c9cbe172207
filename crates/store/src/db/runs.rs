//! Runs.
//!
//! ```text
//!   insert ──> queued ── start ──> running ── finish ──> done | failed | cancelled | expired
//!                ^ │                  │                              ^
//!                │ └── cancel, finish ┼──────────────────────────────┘
//!                └───── requeue ──────┘
//! ```
//!
//! `attempt` counts the starts. Who changes a run says which attempt it means, so that a late word of
//! an earlier attempt changes nothing.

mod ended;
mod key;
mod state;

use rusqlite::{Row, params};

use self::ended::{check_finish, check_new};
pub use self::key::RunKey;
pub use self::state::{RunEnd, RunState, Swap};
use super::access::{Reading, Writing};
use super::check;
use super::error::DbError;
use super::page::{MAX_PAGE, Page, PageOf};

/// A run to be kept.
#[derive(Clone, Debug)]
pub struct NewRun {
    /// Its id.
    pub id: String,
    /// Whose it is.
    pub tenant: String,
    /// The key it was asked with, if any.
    pub key_id: Option<String>,
    /// Whether its asker does not wait, so that it is carried out after a restart too.
    pub durable: bool,
    /// Its place among the tenant's own runs.
    pub priority: i64,
    /// When it must have been started or is expired.
    pub deadline: Option<i64>,
    /// What it is, for lists, JSON of at most [`MAX_ABOUT_BYTES`].
    pub about: String,
    /// What to run, JSON; forgotten when it ends.
    pub spec: String,
    /// When it was accepted.
    pub created: i64,
}

/// What lists say about a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunHead {
    /// Its id.
    pub id: String,
    /// Whose it is.
    pub tenant: String,
    /// The key it was asked with, if any.
    pub key_id: Option<String>,
    /// Where it is in its life.
    pub state: RunState,
    /// How often it was started.
    pub attempt: u32,
    /// Whether its asker does not wait.
    pub durable: bool,
    /// Its place among the tenant's own runs.
    pub priority: i64,
    /// When it must have been started or is expired.
    pub deadline: Option<i64>,
    /// What it is, JSON.
    pub about: String,
    /// How it ended, JSON.
    pub outcome: Option<String>,
    /// When it was accepted.
    pub created: i64,
    /// When its last attempt was started.
    pub started: Option<i64>,
    /// When it ended.
    pub finished: Option<i64>,
}

/// All of a run but its output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// What lists say.
    pub head: RunHead,
    /// What to run, JSON, until it has ended.
    pub spec: Option<String>,
}

/// A part of the events of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputPart {
    /// Number of its last event; grows from part to part.
    pub last: u64,
    /// Its events, opaque.
    pub events: Vec<u8>,
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Finish {
    /// Which run.
    pub id: String,
    /// Which attempt of it: 0 for a run that was never started.
    pub attempt: u32,
    /// Its last state.
    pub state: RunEnd,
    /// How it ended, JSON of at most [`MAX_OUTCOME_BYTES`].
    pub outcome: Option<String>,
    /// Its events in parts, in order; all of them at most [`MAX_RUN_OUTPUT_BYTES`].
    pub output: Vec<OutputPart>,
    /// When.
    pub finished: i64,
}

/// Longest outcome: lists have them, and a page of those must not be large.
pub const MAX_OUTCOME_BYTES: usize = 16 * 1024;
/// Longest description: 32 labels of 512 bytes, each byte of them escaped, and as much again.
pub const MAX_ABOUT_BYTES: usize = 128 * 1024;
/// Longest output: what the log of one run holds in memory, and what each of its events takes beside.
pub const MAX_RUN_OUTPUT_BYTES: usize = 64 * 1024 * 1024;

const HEAD: &str = "seq, id, tenant, key_id, state, attempt, durable, priority, deadline, about, outcome, \
                    created, started, finished";

fn head_of_row(row: &Row<'_>) -> rusqlite::Result<(i64, RunHead)> {
    let head = RunHead {
        id: row.get("id")?,
        tenant: row.get("tenant")?,
        key_id: row.get("key_id")?,
        state: row.get("state")?,
        attempt: row.get("attempt")?,
        durable: row.get("durable")?,
        priority: row.get("priority")?,
        deadline: row.get("deadline")?,
        about: row.get("about")?,
        outcome: row.get("outcome")?,
        created: row.get("created")?,
        started: row.get("started")?,
        finished: row.get("finished")?,
    };
    Ok((row.get("seq")?, head))
}

impl Reading<'_> {
    /// One run.
    pub fn run(&self, id: &str) -> Result<Option<Run>, DbError> {
        let sql = format!("SELECT {HEAD}, spec FROM runs WHERE id = ?1");
        self.one(&sql, [id], |row| {
            let (_, head) = head_of_row(row)?;
            let spec = row.get("spec")?;
            Ok(Run { head, spec })
        })
    }

    /// The part of a run's output that has the event after this number; 0 for the first one. None, if
    /// there is no later event. The other parts are not read.
    pub fn run_output(&self, id: &str, after: u64) -> Result<Option<OutputPart>, DbError> {
        let sql = "SELECT last, events FROM run_outputs JOIN runs ON run = seq
                   WHERE id = ?1 AND last > ?2 ORDER BY last LIMIT 1";
        self.one(sql, params![id, after], |row| {
            Ok(OutputPart {
                last: row.get(0)?,
                events: row.get(1)?,
            })
        })
    }

    /// Runs of a tenant, newest first; all, or those in one state; from the first, or those that come
    /// after this one in the list. At most `limit` of them, and at most [`MAX_PAGE`].
    ///
    /// They are in the order of their ids, which is that of their submissions: one that is not durable
    /// is added only when it has ended, so the order of the inserts is another.
    pub fn runs(
        &self,
        tenant: &str,
        state: Option<RunState>,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<RunHead>, DbError> {
        let sql = format!(
            "SELECT {HEAD} FROM runs
             WHERE tenant = ?1 AND (?2 IS NULL OR id < ?2) AND (?3 IS NULL OR state = ?3)
             ORDER BY id DESC LIMIT ?4"
        );
        let params = params![tenant, after, state, limit.min(MAX_PAGE)];
        self.many(&sql, params, |row| Ok(head_of_row(row)?.1))
    }

    /// Runs that are queued or running, in the order of their inserts: for the start of a service.
    pub fn unfinished_runs(&self, page: PageOf) -> Result<Page<RunHead>, DbError> {
        let sql = format!(
            "SELECT {HEAD} FROM runs WHERE finished IS NULL AND seq > ?1 ORDER BY seq LIMIT ?2"
        );
        let params = params![page.above(), page.look_for()];
        Ok(page.of(self.many(&sql, params, head_of_row)?))
    }

    /// Why a change of a run did not match: what is there.
    fn swap(&self, changed: usize, id: &str) -> Result<Swap, DbError> {
        if changed > 0 {
            return Ok(Swap::Made);
        }
        let sql = "SELECT state, attempt FROM runs WHERE id = ?1";
        let found = self.one(sql, [id], |row| {
            let (state, attempt) = (row.get(0)?, row.get(1)?);
            Ok(Swap::Refused { state, attempt })
        })?;
        Ok(found.unwrap_or(Swap::NotFound))
    }
}

impl Writing<'_> {
    /// Adds a run, queued.
    pub fn insert_run(&self, run: &NewRun) -> Result<(), DbError> {
        check_new(run)?;
        check::json("the spec of a run", &run.spec)?;
        self.insert(
            "run",
            &run.id,
            "INSERT INTO runs (id, tenant, key_id, state, durable, priority, deadline, about, spec, created)
             VALUES (?1, ?2, ?3, 'queued', ?4, ?5, ?6, ?7, ?8, ?9)",
            params![
                run.id,
                run.tenant,
                run.key_id,
                run.durable,
                run.priority,
                run.deadline,
                run.about,
                run.spec,
                run.created
            ],
        )
    }

    /// Queued to running, if it was started `attempt` times; the attempt that it is then is one more.
    pub fn start_run(&self, id: &str, attempt: u32, now: i64) -> Result<Swap, DbError> {
        let sql = "UPDATE runs SET state = 'running', attempt = attempt + 1, started = ?3
                   WHERE id = ?1 AND state = 'queued' AND attempt = ?2";
        let changed = self.execute(sql, params![id, attempt, now])?;
        self.swap(changed, id)
    }

    /// Running to queued again, if this attempt is the last: it did not begin, or may be repeated.
    pub fn requeue_run(&self, id: &str, attempt: u32) -> Result<Swap, DbError> {
        let sql = "UPDATE runs SET state = 'queued'
                   WHERE id = ?1 AND state = 'running' AND attempt = ?2";
        let changed = self.execute(sql, params![id, attempt])?;
        self.swap(changed, id)
    }

    /// Ends a run that has not ended, if this attempt is the last.
    pub fn finish_run(&self, finish: &Finish) -> Result<Swap, DbError> {
        check_finish(finish)?;
        let sql = "UPDATE runs SET state = ?3, outcome = ?4, finished = ?5, spec = NULL
                   WHERE id = ?1 AND attempt = ?2 AND finished IS NULL";
        let changed = self.execute(
            sql,
            params![
                finish.id,
                finish.attempt,
                RunState::from(finish.state),
                finish.outcome,
                finish.finished
            ],
        )?;
        if changed == 1 {
            self.put_output(finish)?;
        }
        self.swap(changed, &finish.id)
    }

    /// Queued to cancelled. One that runs is refused: it is stopped first, and then finished.
    pub fn cancel_run(&self, id: &str, now: i64) -> Result<Swap, DbError> {
        let sql = "UPDATE runs SET state = 'cancelled', finished = ?2, spec = NULL
                   WHERE id = ?1 AND state = 'queued'";
        let changed = self.execute(sql, params![id, now])?;
        self.swap(changed, id)
    }

    /// Removes at most `most` runs that ended before `older_than`. How many it removed: when it is
    /// `most` there may be more.
    pub fn prune_runs(&self, older_than: i64, most: u32) -> Result<usize, DbError> {
        let sql = "DELETE FROM runs WHERE seq IN
                   (SELECT seq FROM runs WHERE finished < ?1 ORDER BY finished LIMIT ?2)";
        self.execute(sql, params![older_than, most])
    }
}
