//! What the coordinator writes into the database of runs, and reads from it.

use std::sync::Arc;
use std::time::Duration;

use firelane_model::id::RunId;
use firelane_store::db::{
    DbError, OutputPart, PageOf, Run as RunRecord, RunKey, RunState as Recorded, Swap,
};
use firelane_store::live::MAX_PAGE_BYTES;
use firelane_wire::bus::decode;
use firelane_wire::event::{End, Event, LogPage, ReadLog};
use firelane_wire::problem::{Code, Problem};
use firelane_wire::run::Run;
use jiff::Timestamp;
use tokio::time::{MissedTickBehavior, interval};

use crate::entry::Entry;
use crate::records::{self, Ended, Submission, Used, problem};
use crate::room;
use crate::service::Coordinator;

/// How long a run can be looked at after its end.
const RUNS_KEPT: Duration = Duration::from_hours(7 * 24);
/// How long a sandbox can be looked at after its end.
const SANDBOXES_KEPT: Duration = RUNS_KEPT;
/// How long an idempotency key means its run, or its answer.
const RUN_KEYS_KEPT: Duration = Duration::from_hours(24);
/// How often what is older is removed.
const PRUNE_INTERVAL: Duration = Duration::from_hours(1);
/// Rows that are removed at once, so that other writes wait for a short time only.
const PRUNED_AT_ONCE: u32 = 256;
/// Runs that are taken back into the queue from one read.
const REVIVED_AT_ONCE: u32 = 100;

impl Coordinator {
    /// Has a run on disk: the run, its idempotency key and the row of the audit, or nothing of them.
    pub(crate) async fn keep(
        &self,
        entry: &Entry,
        key: Option<(String, [u8; 32])>,
    ) -> Result<RunKey, DbError> {
        let new = Submission::of(entry);
        let kept = self.db.write(move |tx| {
            let (tenant, id, created) = (new.tenant(), new.id(), new.created());
            let known = match &key {
                Some((key, fingerprint)) => {
                    tx.take_run_key(tenant, key, fingerprint, id, created)?
                }
                None => RunKey::New,
            };
            if known == RunKey::New {
                new.insert(tx)?;
            }
            Ok(known)
        });
        kept.await
    }

    /// Writes down that a host gets the run.
    pub(crate) async fn mark_started(&self, entry: &Entry) -> Result<(), DbError> {
        let (id, run) = (entry.id, entry.id.to_string());
        let (attempt, started) = {
            let now = entry.now();
            let started = now.started.unwrap_or_else(records::now);
            (now.attempt, started.as_millisecond())
        };
        let started = self
            .db
            .write(move |tx| tx.start_run(&run, attempt, started));
        match started.await? {
            Swap::Made => entry.now().attempt = attempt + 1,
            swap => tracing::error!(run = %id, ?swap, "a run was not queued on record"),
        }
        Ok(())
    }

    /// Writes a run that is over, in the background; until that is done it is read from memory.
    pub(crate) fn record(self: &Arc<Self>, entry: &Arc<Entry>, end: &End) {
        let (this, entry, end) = (Arc::clone(self), Arc::clone(entry), end.clone());
        let used = Used::of(&entry, &end);
        self.charge(&entry, &used);
        self.tasks.spawn(async move {
            let output = records::whole_log(&entry).await;
            let ended = Ended::of(&entry, &end, output, used);
            match this.db.write(move |tx| ended.write(tx)).await {
                Ok(Swap::Made) => drop(this.state().runs.remove(&entry.id)),
                // It stays in memory: that is where it still can be read.
                Ok(swap) => {
                    tracing::error!(run = %entry.id, ?swap, "a run was not under way on record");
                }
                Err(error) => drop(problem(&error)),
            }
        });
    }

    /// A run that is on record, and whose it is.
    pub(crate) async fn recorded(&self, tenant: &str, id: RunId) -> Result<Run, Problem> {
        let name = id.to_string();
        let run = self.db.read(move |rx| rx.run(&name)).await;
        let run = run.map_err(|error| problem(&error))?;
        match run.filter(|run| run.head.tenant == tenant) {
            Some(run) => records::shown(&run.head),
            None => Err(Problem::not_found("run", id)),
        }
    }

    /// A part of the log of a run that is over, from its record.
    pub(crate) async fn recorded_log(&self, id: RunId, read: ReadLog) -> Result<LogPage, Problem> {
        let mut page = LogPage::default();
        let room = usize::try_from(read.max_bytes).unwrap_or(usize::MAX);
        let mut room = room.min(MAX_PAGE_BYTES);
        let mut after = read.after;
        // Part by part: what the reader does not get is not read either.
        while let Some(part) = self.recorded_part(id, after).await? {
            let events: Vec<(u64, Event)> = decode(&part.events)?;
            for (number, event) in events.into_iter().filter(|(number, _)| *number > after) {
                let bytes = event.bytes();
                if bytes > room && !page.events.is_empty() {
                    return Ok(page);
                }
                room = room.saturating_sub(bytes);
                page.events.push((number, event));
            }
            after = part.last;
        }
        if after == 0 {
            // Every log has an end: this run has none yet.
            return Err(Problem::not_found("run", id));
        }
        page.end = true;
        Ok(page)
    }

    async fn recorded_part(&self, id: RunId, after: u64) -> Result<Option<OutputPart>, Problem> {
        let name = id.to_string();
        let part = self.db.read(move |rx| rx.run_output(&name, after)).await;
        part.map_err(|error| problem(&error))
    }

    /// Puts back into the queue what was on disk when the service last ended. What had a host then is
    /// over: it must not run twice.
    pub(crate) async fn revive(self: &Arc<Self>) -> Result<(), DbError> {
        let mut page = PageOf::first(REVIVED_AT_ONCE);
        loop {
            let found = self.db.read(move |rx| {
                let heads = rx.unfinished_runs(page)?;
                let mut runs = Vec::new();
                for head in &heads.items {
                    runs.extend(rx.run(&head.id)?);
                }
                Ok((runs, heads.next))
            });
            let (runs, next) = found.await?;
            for run in runs {
                self.revive_one(&run);
            }
            if next.is_none() {
                return Ok(());
            }
            page.after = next;
        }
    }

    fn revive_one(self: &Arc<Self>, run: &RunRecord) {
        let head = &run.head;
        let spec = run.spec.as_deref().unwrap_or_default();
        let Some((id, caller, mut request)) = records::revived(&head.id, spec) else {
            tracing::error!(run = head.id, "the record of a run cannot be read");
            return;
        };
        request.deadline_ms = records::left(
            request.deadline_ms,
            head.deadline,
            records::now().as_millisecond(),
        );
        let bytes = room::size(&request);
        let mut entry = Entry::new(id, caller, request, true, None);
        entry.traceparent = records::traceparent(&head.about);
        if let Ok(created) = Timestamp::from_millisecond(head.created) {
            entry.created = created;
            entry.submitted = created.into();
        }
        {
            let mut now = entry.now();
            now.attempt = head.attempt;
            let started = head.started.map(Timestamp::from_millisecond);
            now.started = started.and_then(Result::ok);
        }
        let entry = Arc::new(entry);
        self.state().runs.insert(id, Arc::clone(&entry));
        let end = match head.state {
            Recorded::Queued => {
                // It was let in before, and stays.
                let held = self.state().room.take(&entry.caller.tenant, bytes);
                self.enqueue(&entry, held).err()
            }
            _ => {
                let problem = Problem::new(Code::Unavailable, "the service ended while it ran");
                Some(problem.with_remedy("ask for it again"))
            }
        };
        if let Some(problem) = end {
            self.finish(&entry, &End::Failed(problem));
        }
    }

    /// Removes what is too old, now and then, until the end.
    pub(crate) async fn prune(self: Arc<Self>) {
        let mut ticks = interval(PRUNE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.stop.cancelled() => return,
            }
            if let Err(error) = self.prune_once(Timestamp::now().as_millisecond()).await {
                let error: &dyn std::error::Error = &error;
                tracing::error!(error, "what is too old was not removed");
            }
        }
    }

    /// Removes what is too old at this time, in milliseconds since 1970.
    pub(crate) async fn prune_once(&self, now: i64) -> Result<(), DbError> {
        let before = |kept: Duration| {
            let kept = i64::try_from(kept.as_millis()).unwrap_or(i64::MAX);
            now.saturating_sub(kept)
        };
        let (runs, keys) = (before(RUNS_KEPT), before(RUN_KEYS_KEPT));
        let sandboxes = before(SANDBOXES_KEPT);
        loop {
            let removed = self.db.write(move |tx| {
                let runs = tx.prune_runs(runs, PRUNED_AT_ONCE)?;
                let sandboxes = tx.prune_sandboxes(sandboxes, PRUNED_AT_ONCE)?;
                let keys = tx
                    .forget_run_keys(keys, PRUNED_AT_ONCE)?
                    .max(tx.expire_answers(keys, PRUNED_AT_ONCE)?);
                Ok(runs.max(sandboxes).max(keys))
            });
            if removed.await? < PRUNED_AT_ONCE as usize || self.stop.is_cancelled() {
                return Ok(());
            }
        }
    }
}
