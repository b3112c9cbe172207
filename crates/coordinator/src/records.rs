//! Runs and their records in the database.

use std::collections::BTreeMap;
use std::sync::Arc;

use firelane_guest_proto::Lang;
use firelane_model::id::RunId;
use firelane_store::db::{DbError, RunRow, Used};
use firelane_wire::bus::{Caller, decode, encode};
use firelane_wire::event::{End, Event, LogPage, ReadLog};
use firelane_wire::problem::{Code, Problem};
use firelane_wire::run::{Run, RunRequest, RunState};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::entry::Entry;
use crate::service::Coordinator;

/// Microseconds of a day.
const DAY_US: i64 = 86_400_000_000;

/// What a run is, as the record keeps it.
#[derive(Serialize, Deserialize)]
struct About {
    lang: Lang,
    template: String,
    labels: BTreeMap<String, String>,
}

/// A database that fails, as callers are told of it. What it says goes into the log.
pub(crate) fn problem(error: &DbError) -> Problem {
    tracing::error!(
        error = error as &dyn std::error::Error,
        "the database failed"
    );
    match error {
        DbError::Full { .. } => Problem::new(Code::StorageFull, error.to_string())
            .with_remedy("make space on the service's disk"),
        DbError::Sqlite { .. } | DbError::Closed => Problem::new(Code::Internal, error.to_string()),
    }
}

/// A record that cannot be read is damaged, or of another version.
fn unreadable(id: &str) -> Problem {
    Problem::new(Code::Internal, format!("the record of {id} cannot be read"))
}

/// The record of a run as it is now.
pub(crate) fn row(entry: &Entry) -> RunRow {
    let about = About {
        lang: entry.lang,
        template: entry.template.clone(),
        labels: entry.labels.clone(),
    };
    let now = entry.now();
    RunRow {
        id: entry.id.to_string(),
        tenant: entry.caller.tenant.clone(),
        caller: json(&entry.caller),
        state: now.state.name().into(),
        about: json(&about),
        request: now.request.as_ref().map(json),
        problem: now.problem.as_ref().map(json),
        created_us: entry.created.as_microsecond(),
        started_us: now.started.map(Timestamp::as_microsecond),
        finished_us: now.finished.map(Timestamp::as_microsecond),
    }
}

/// Strings, numbers and maps with string keys: this cannot fail.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// A record as callers see it.
pub(crate) fn shown(row: &RunRow) -> Result<Run, Problem> {
    let damaged = || unreadable(&row.id);
    let about: About = serde_json::from_str(&row.about).map_err(|_| damaged())?;
    let state = state(&row.state).ok_or_else(damaged)?;
    let time = |us: i64| Timestamp::from_microsecond(us).map(|at| at.to_string());
    let problem = row.problem.as_deref().map(serde_json::from_str).transpose();
    Ok(Run {
        id: row.id.parse().map_err(|_| damaged())?,
        state,
        lang: about.lang,
        template: about.template,
        created_at: time(row.created_us).map_err(|_| damaged())?,
        started_at: row.started_us.and_then(|us| time(us).ok()),
        finished_at: row.finished_us.and_then(|us| time(us).ok()),
        place: None,
        outcome: None,
        problem: problem.map_err(|_| damaged())?,
        labels: about.labels,
    })
}

fn state(name: &str) -> Option<RunState> {
    let all = [
        RunState::Queued,
        RunState::Running,
        RunState::Done,
        RunState::Failed,
        RunState::Cancelled,
        RunState::Expired,
    ];
    all.into_iter().find(|state| state.name() == name)
}

/// A run that was queued when the service last ended.
pub(crate) fn revived(row: &RunRow) -> Option<(RunId, Caller, RunRequest)> {
    let id = row.id.parse().ok()?;
    let caller = serde_json::from_str(&row.caller).ok()?;
    let request = serde_json::from_str(row.request.as_deref()?).ok()?;
    Some((id, caller, request))
}

impl Coordinator {
    /// Writes a run that is over, in the background; until that is done it is read from memory.
    pub(crate) fn record(self: &Arc<Self>, entry: &Arc<Entry>, end: &End) {
        let (this, entry) = (Arc::clone(self), Arc::clone(entry));
        let used = used(&entry, end);
        self.charge(&entry, &used);
        self.tasks.spawn(async move {
            let log = whole_log(&entry).await;
            let written = this.db.finish_run(row(&entry), log, used).await;
            match written {
                Ok(()) => drop(this.state().runs.remove(&entry.id)),
                // It stays in memory: that is where it still can be read.
                Err(error) => drop(problem(&error)),
            }
        });
    }

    /// A part of the log of a run that is over, from its record.
    pub(crate) async fn recorded_log(&self, id: RunId, read: ReadLog) -> Result<LogPage, Problem> {
        let log = self.db.run_log(id.to_string()).await;
        let bytes = log.map_err(|error| problem(&error))?;
        let bytes = bytes.ok_or_else(|| Problem::not_found("run", id))?;
        let events: Vec<(u64, Event)> = decode(&bytes)?;
        let mut page = LogPage {
            end: true,
            ..LogPage::default()
        };
        let mut room = usize::try_from(read.max_bytes).unwrap_or(usize::MAX);
        for (number, event) in events
            .into_iter()
            .filter(|(number, _)| *number > read.after)
        {
            let bytes = event.bytes();
            if bytes > room && !page.events.is_empty() {
                page.end = false;
                break;
            }
            room = room.saturating_sub(bytes);
            page.events.push((number, event));
        }
        Ok(page)
    }
}

/// Everything that a log still has.
async fn whole_log(entry: &Entry) -> Vec<u8> {
    let mut events = Vec::new();
    let mut after = 0;
    loop {
        let read = ReadLog {
            after,
            max_bytes: u64::MAX,
            wait_ms: 0,
            whole: false,
        };
        let page = entry.log.read(read).await;
        after = page.events.last().map_or(after, |(number, _)| *number);
        events.extend(page.events);
        if page.end {
            // Bytes, numbers and strings: this cannot fail.
            return encode(&events).unwrap_or_default();
        }
    }
}

fn used(entry: &Entry, end: &End) -> Used {
    let us = |ms: f64| (ms * 1e3) as i64;
    let (cpu_us, wall_us) = match end {
        End::Done { ending, .. } => (us(ending.usage.cpu_ms), us(ending.usage.wall_ms)),
        _ => (0, 0),
    };
    Used {
        day: today(),
        tenant: entry.caller.tenant.clone(),
        key: entry
            .caller
            .key
            .map_or_else(String::new, |key| key.to_string()),
        cpu_us,
        wall_us,
        output_bytes: i64::try_from(entry.now().written).unwrap_or(i64::MAX),
    }
}

/// The day (UTC), counted from 1970.
pub(crate) fn today() -> i64 {
    Timestamp::now().as_microsecond().div_euclid(DAY_US)
}
