//! One run, from its submission to its record.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use firelane_guest_proto::Lang;
use firelane_model::concurrency::Pass;
use firelane_model::id::{KeyId, RunId};
use firelane_store::live::LiveLog;
use firelane_wire::bus::Caller;
use firelane_wire::event::{End, Event};
use firelane_wire::problem::Problem;
use firelane_wire::run::{Place, Run, RunRequest, RunState};
use firelane_wire::trace::TraceParent;
use jiff::Timestamp;
use tokio::time::Instant;

use crate::records;
use crate::traces;

/// What the log of a run may hold beside what the program writes and what is fetched, in bytes.
const LOG_SLACK: u64 = 18 << 20;

/// A run that is not forgotten yet.
pub(crate) struct Entry {
    pub(crate) id: RunId,
    pub(crate) caller: Caller,
    pub(crate) lang: Lang,
    pub(crate) template: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) created: Timestamp,
    pub(crate) asked: Instant,
    /// The same by the clock; of one that a restart took up again, the time of its record.
    pub(crate) submitted: SystemTime,
    /// The caller's span that it is a part of.
    pub(crate) traceparent: Option<TraceParent>,
    /// It is in the database since before its submission was answered.
    pub(crate) durable: bool,
    pub(crate) log: LiveLog,
    now: Mutex<Now>,
}

/// What changes.
pub(crate) struct Now {
    pub(crate) state: RunState,
    pub(crate) started: Option<Timestamp>,
    pub(crate) started_at: Option<Instant>,
    pub(crate) finished: Option<Timestamp>,
    pub(crate) problem: Option<Problem>,
    /// The host that has it.
    pub(crate) host: Option<String>,
    /// How often it was started, as its record has it.
    pub(crate) attempt: u32,
    /// Bytes that the program wrote.
    pub(crate) written: u64,
    /// Its owner has asked for its end.
    pub(crate) cancelled: bool,
    /// What to run, until a host has it.
    pub(crate) request: Option<RunRequest>,
    /// Counts it among those that its key has going.
    pub(crate) pass: Option<Pass<KeyId>>,
}

impl Entry {
    pub(crate) fn new(
        id: RunId,
        caller: Caller,
        request: RunRequest,
        durable: bool,
        pass: Option<Pass<KeyId>>,
    ) -> Entry {
        let log_bytes = request.output_bytes.saturating_mul(2) + LOG_SLACK;
        Entry {
            id,
            caller,
            lang: request.lang,
            template: request.template.clone(),
            labels: request.labels.clone(),
            created: records::now(),
            asked: Instant::now(),
            submitted: SystemTime::now(),
            traceparent: None,
            durable,
            log: LiveLog::new(usize::try_from(log_bytes).unwrap_or(usize::MAX)),
            now: Mutex::new(Now {
                state: RunState::Queued,
                started: None,
                started_at: None,
                finished: None,
                problem: None,
                host: None,
                attempt: 0,
                written: 0,
                cancelled: false,
                request: Some(request),
                pass,
            }),
        }
    }

    pub(crate) fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts what the program wrote.
    pub(crate) fn count(&self, event: &Event) {
        if let Event::Stdout(bytes) | Event::Stderr(bytes) = event {
            self.now().written += bytes.len() as u64;
        }
    }

    /// The state that belongs to an end.
    pub(crate) const fn state_of(end: &End) -> RunState {
        match end {
            End::Done { .. } => RunState::Done,
            End::Failed(_) => RunState::Failed,
            End::Cancelled => RunState::Cancelled,
            End::Expired => RunState::Expired,
        }
    }

    /// As callers see it; without what it wrote.
    pub(crate) fn shown(&self, place: Option<Place>) -> Run {
        let now = self.now();
        Run {
            id: self.id,
            state: now.state,
            lang: self.lang,
            template: self.template.clone(),
            created_at: self.created.to_string(),
            started_at: now.started.map(|at| at.to_string()),
            finished_at: now.finished.map(|at| at.to_string()),
            place: place.filter(|_| now.state == RunState::Queued),
            outcome: None,
            problem: now.problem.clone(),
            labels: self.labels.clone(),
            trace_id: Some(traces::id_of(self.id, self.traceparent)),
        }
    }
}
