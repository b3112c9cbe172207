//! Runs and their records in the database.

use std::collections::BTreeMap;

use firelane_guest_proto::Lang;
use firelane_model::id::RunId;
use firelane_store::db::{
    AuditEntry, Class, DbError, Finish, MAX_OUTCOME_BYTES, MAX_RUN_OUTPUT_BYTES, NewRun,
    OutputPart, RunEnd, RunHead, RunState as Recorded, Swap, Usage, Writing, day_of,
};
use firelane_wire::bus::{Caller, encode};
use firelane_wire::event::{End, Event, ReadLog};
use firelane_wire::problem::{Code, Problem};
use firelane_wire::run::{Run, RunRequest, RunState};
use firelane_wire::trace::TraceParent;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::entry::Entry;
use crate::traces;

/// Bytes of events that are kept as one part, about: who reads a page reads over one or two of them.
pub(crate) const PART_BYTES: u64 = 256 << 10;
/// Who did it, in the audit, if it was no key: the owner of the local socket.
const OWNER: &str = "local";

/// What a run is, as the record keeps it.
#[derive(Serialize, Deserialize)]
struct About {
    lang: Lang,
    template: String,
    labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    traceparent: Option<TraceParent>,
}

/// A database that fails, as callers are told of it. What it says goes into the log.
pub(crate) fn problem(error: &DbError) -> Problem {
    tracing::error!(
        error = error as &dyn std::error::Error,
        "the database failed"
    );
    let cause = error.to_string();
    match error.class() {
        Class::Invalid => Problem::new(Code::Invalid, cause),
        Class::Conflict => Problem::new(Code::Conflict, cause),
        Class::Exhausted => {
            Problem::new(Code::StorageFull, cause).with_remedy("make space on the service's disk")
        }
        Class::Unavailable => Problem::new(Code::Unavailable, cause),
        Class::Internal => Problem::new(Code::Internal, cause),
    }
}

/// Now, as exactly as records keep it: what is shown does not change when it is read from one.
pub(crate) fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
}

/// The day (UTC), counted from 1970.
pub(crate) fn today() -> i64 {
    day_of(Timestamp::now().as_millisecond())
}

/// A time of a record, as callers see it.
pub(crate) fn time(at_ms: i64) -> Option<String> {
    let at = Timestamp::from_millisecond(at_ms).ok()?;
    Some(at.to_string())
}

/// Strings, numbers and maps with string keys: this cannot fail.
pub(crate) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// Who did it, as the audit names them.
pub(crate) fn actor(caller: &Caller) -> String {
    let key = caller.key.map(|key| key.to_string());
    key.unwrap_or_else(|| OWNER.into())
}

/// A run that is new to the database, and what the audit says of it.
pub(crate) struct Submission {
    run: NewRun,
    audit: AuditEntry,
}

impl Submission {
    pub(crate) fn of(entry: &Entry) -> Submission {
        let about = About {
            lang: entry.lang,
            template: entry.template.clone(),
            labels: entry.labels.clone(),
            traceparent: entry.traceparent,
        };
        let created = entry.created.as_millisecond();
        let key_id = entry.caller.key.map(|key| key.to_string());
        let id = entry.id.to_string();
        let now = entry.now();
        let request = now.request.as_ref();
        let deadline_ms = request.and_then(|request| request.deadline_ms);
        Submission {
            audit: AuditEntry {
                at: created,
                actor: actor(&entry.caller),
                action: "run.create".into(),
                subject: id.clone(),
                detail: "{}".into(),
            },
            run: NewRun {
                id,
                tenant: entry.caller.tenant.clone(),
                key_id,
                durable: entry.durable,
                priority: request.map_or(0, |request| request.priority.into()),
                deadline: deadline_ms.map(|ms| created.saturating_add_unsigned(ms)),
                about: json(&about),
                spec: json(&(&entry.caller, request)),
                created,
            },
        }
    }

    pub(crate) fn id(&self) -> &str {
        &self.run.id
    }

    pub(crate) fn tenant(&self) -> &str {
        &self.run.tenant
    }

    pub(crate) fn created(&self) -> i64 {
        self.run.created
    }

    pub(crate) fn insert(&self, tx: &Writing<'_>) -> Result<(), DbError> {
        tx.insert_run(&self.run)?;
        tx.append_audit(&self.audit)?;
        Ok(())
    }

    /// The same for a run that is over.
    fn insert_ended(
        &self,
        tx: &Writing<'_>,
        started: Option<i64>,
        finish: &Finish,
    ) -> Result<(), DbError> {
        tx.insert_ended_run(&self.run, started, finish)?;
        tx.append_audit(&self.audit)?;
        Ok(())
    }
}

/// What a run used, and when it ended.
pub(crate) struct Used {
    pub(crate) day: i64,
    pub(crate) usage: Usage,
}

impl Used {
    pub(crate) fn of(entry: &Entry, end: &End) -> Used {
        // From a float it saturates, and what is no number is 0.
        let us = |ms: f64| (ms * 1e3) as u64;
        let (cpu_us, wall_us) = match end {
            End::Done { ending, .. } => (us(ending.usage.cpu_ms), us(ending.usage.wall_ms)),
            // What it used of processors was not measured; the time that it had them is known.
            _ => {
                let started = entry.now().started_at;
                let wall_us = started.map_or(0, |at| at.elapsed().as_micros());
                (0, u64::try_from(wall_us).unwrap_or(u64::MAX))
            }
        };
        Used {
            day: today(),
            usage: Usage {
                runs: 1,
                cpu_us,
                wall_us,
                output_bytes: entry.now().written,
            },
        }
    }
}

/// The end of a run, for the database.
pub(crate) struct Ended {
    /// Of a run that the database does not have yet.
    submission: Option<Submission>,
    /// When its attempt began, of such a run.
    started: Option<i64>,
    finish: Finish,
    tenant: String,
    /// Empty for none.
    key_id: String,
    used: Used,
}

impl Ended {
    pub(crate) fn of(entry: &Entry, end: &End, output: Vec<OutputPart>, used: Used) -> Ended {
        let submission = (!entry.durable).then(|| Submission::of(entry));
        let key = entry.caller.key;
        let now = entry.now();
        let state = match end {
            End::Done { .. } => RunEnd::Done,
            End::Failed(_) => RunEnd::Failed,
            End::Cancelled => RunEnd::Cancelled,
            End::Expired => RunEnd::Expired,
        };
        Ended {
            submission,
            started: now.started.map(Timestamp::as_millisecond),
            finish: Finish {
                id: entry.id.to_string(),
                attempt: now.attempt,
                state,
                outcome: now.problem.as_ref().map(outcome),
                output,
                finished: now.finished.map_or(0, Timestamp::as_millisecond),
            },
            tenant: entry.caller.tenant.clone(),
            key_id: key.map_or_else(String::new, |key| key.to_string()),
            used,
        }
    }

    /// Writes it, and what was used. Whether the run was there to be ended.
    pub(crate) fn write(&self, tx: &Writing<'_>) -> Result<Swap, DbError> {
        let swap = match &self.submission {
            Some(new) => {
                new.insert_ended(tx, self.started, &self.finish)?;
                Swap::Made
            }
            None => tx.finish_run(&self.finish)?,
        };
        if swap == Swap::Made {
            let Used { day, usage } = &self.used;
            tx.add_usage(&self.tenant, &self.key_id, *day, usage)?;
        }
        Ok(swap)
    }
}

fn outcome(problem: &Problem) -> String {
    let text = json(problem);
    if text.len() <= MAX_OUTCOME_BYTES {
        return text;
    }
    json(&Problem::new(
        problem.code,
        "its cause is too long to be kept",
    ))
}

/// Everything that a log still has, as the record keeps it.
pub(crate) async fn whole_log(entry: &Entry) -> Vec<OutputPart> {
    let mut parts = Vec::new();
    let mut bytes = 0;
    let mut after = 0;
    loop {
        let read = ReadLog {
            after,
            max_bytes: PART_BYTES,
            wait_ms: 0,
            whole: false,
        };
        let page = entry.log.read(read).await;
        after = page.events.last().map_or(after, |(number, _)| *number);
        let part = part(&page.events);
        bytes += part.events.len();
        parts.push(part);
        if page.end {
            if bytes <= MAX_RUN_OUTPUT_BYTES {
                return parts;
            }
            tracing::error!(run = %entry.id, bytes, "of a run's log only the end is kept");
            let end = page.events.len().saturating_sub(1);
            return vec![self::part(&page.events[end..])];
        }
    }
}

/// Events in order, at least one, as the record keeps them.
fn part(events: &[(u64, Event)]) -> OutputPart {
    OutputPart {
        last: events.last().map_or(0, |(number, _)| *number),
        // Bytes, numbers and strings: this cannot fail.
        events: encode(&events).unwrap_or_default(),
    }
}

/// A record that cannot be read is damaged, or of another version.
pub(crate) fn unreadable(id: &str) -> Problem {
    Problem::new(Code::Internal, format!("the record of {id} cannot be read"))
}

/// A record as callers see it.
pub(crate) fn shown(head: &RunHead) -> Result<Run, Problem> {
    let damaged = || unreadable(&head.id);
    let about: About = serde_json::from_str(&head.about).map_err(|_| damaged())?;
    let outcome = head.outcome.as_deref();
    let problem = outcome.map(serde_json::from_str).transpose();
    let id = head.id.parse().map_err(|_| damaged())?;
    Ok(Run {
        id,
        state: state(head.state),
        lang: about.lang,
        template: about.template,
        created_at: time(head.created).ok_or_else(damaged)?,
        started_at: head.started.and_then(time),
        finished_at: head.finished.and_then(time),
        place: None,
        outcome: None,
        problem: problem.map_err(|_| damaged())?,
        labels: about.labels,
        trace_id: Some(traces::id_of(id, about.traceparent)),
    })
}

const fn state(recorded: Recorded) -> RunState {
    match recorded {
        Recorded::Queued => RunState::Queued,
        Recorded::Running => RunState::Running,
        Recorded::Done => RunState::Done,
        Recorded::Failed => RunState::Failed,
        Recorded::Cancelled => RunState::Cancelled,
        Recorded::Expired => RunState::Expired,
    }
}

/// The same state as the database has it.
pub(crate) const fn recorded(state: RunState) -> Recorded {
    match state {
        RunState::Queued => Recorded::Queued,
        RunState::Running => Recorded::Running,
        RunState::Done => Recorded::Done,
        RunState::Failed => Recorded::Failed,
        RunState::Cancelled => Recorded::Cancelled,
        RunState::Expired => Recorded::Expired,
    }
}

/// A run that was not over when the service last ended.
pub(crate) fn revived(id: &str, spec: &str) -> Option<(RunId, Caller, RunRequest)> {
    let id = id.parse().ok()?;
    let (caller, request) = serde_json::from_str(spec).ok()?;
    Some((id, caller, request))
}

/// The caller's span that a run is a part of, from what the record says of it.
pub(crate) fn traceparent(about: &str) -> Option<TraceParent> {
    let about: Option<About> = serde_json::from_str(about).ok();
    about?.traceparent
}

/// What is left of a deadline that was given in milliseconds and kept as a time; no more than was given,
/// should the clock have gone back.
pub(crate) fn left(given_ms: Option<u64>, deadline: Option<i64>, now: i64) -> Option<u64> {
    let given_ms = given_ms?;
    let left = deadline.map_or(given_ms, |deadline| {
        u64::try_from(deadline.saturating_sub(now)).unwrap_or(0)
    });
    Some(left.min(given_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_gives_no_more_time() {
        for (now, expected) in [(1_000, 500), (1_400, 100), (1_500, 0), (9_000, 0), (0, 500)] {
            assert_eq!(
                left(Some(500), Some(1_500), now),
                Some(expected),
                "at {now}"
            );
        }
        assert_eq!(left(None, None, 0), None);
    }
}
