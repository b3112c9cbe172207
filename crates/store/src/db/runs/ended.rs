//! Runs that are over when they are put on record, and what runs have written.

use rusqlite::params;

use super::{Finish, MAX_ABOUT_BYTES, MAX_OUTCOME_BYTES, MAX_RUN_OUTPUT_BYTES, NewRun, RunState};
use crate::db::access::Writing;
use crate::db::check;
use crate::db::error::DbError;

impl Writing<'_> {
    /// Adds a run that is over: the same as to insert it, to start it if it was, and to finish it, in a
    /// third of the work. Its spec is not kept.
    pub fn insert_ended_run(
        &self,
        run: &NewRun,
        started: Option<i64>,
        finish: &Finish,
    ) -> Result<(), DbError> {
        check_new(run)?;
        check_finish(finish)?;
        self.insert(
            "run",
            &run.id,
            "INSERT INTO runs (id, tenant, key_id, state, attempt, durable, priority, deadline, about,
                               outcome, created, started, finished)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
            params![
                run.id,
                run.tenant,
                run.key_id,
                RunState::from(finish.state),
                finish.attempt,
                run.durable,
                run.priority,
                run.deadline,
                run.about,
                finish.outcome,
                run.created,
                started,
                finish.finished
            ],
        )?;
        self.put_output(finish)
    }

    /// Keeps what a run wrote.
    pub(super) fn put_output(&self, finish: &Finish) -> Result<(), DbError> {
        let bytes = finish.output.iter().map(|part| part.events.len()).sum();
        check::size("the output of a run", bytes, MAX_RUN_OUTPUT_BYTES)?;
        let sql = "INSERT INTO run_outputs (run, last, events)
                   SELECT seq, ?2, ?3 FROM runs WHERE id = ?1";
        for part in &finish.output {
            self.execute(sql, params![finish.id, part.last, part.events])?;
        }
        Ok(())
    }
}

/// What holds for every run that is added.
pub(super) fn check_new(run: &NewRun) -> Result<(), DbError> {
    check::id("run", &run.id)?;
    check::tenant(&run.tenant)?;
    if let Some(key) = &run.key_id {
        check::id("key", key)?;
    }
    check::size("the description of a run", run.about.len(), MAX_ABOUT_BYTES)
}

pub(super) fn check_finish(finish: &Finish) -> Result<(), DbError> {
    let outcome = finish.outcome.as_deref().unwrap_or_default();
    check::size("the outcome of a run", outcome.len(), MAX_OUTCOME_BYTES)
}
