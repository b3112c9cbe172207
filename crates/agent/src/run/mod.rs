//! Runs on this host: each a task that owns its microVM from claim to teardown.
//!
//! ```text
//!   start ─▶ claim or restore ─▶ put files ─▶ exec ─▶ fetch files ─▶ ended ─▶ teardown
//!                                   └────── stopped ─────────────────▶ ended ─┘
//! ```
//!
//! What happens is written to the run's log, from which the coordinator reads. The microVM is
//! destroyed after the end was written: nobody waits for that.

mod fetch;
mod job;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use firelane_model::id::RunId;
use firelane_store::live::LiveLog;
use firelane_wire::bus::{FeedRun, FollowRun, StartRun, StopRun};
use firelane_wire::event::{End, Input, LogPage};
use firelane_wire::problem::{Code, Problem};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::Agent;

/// Inputs that may wait for a program; who sends more waits.
const QUEUED_INPUTS: usize = 16;
/// How long the sender of input is kept waiting for a program that does not read.
const FEED_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the end of a run that nobody reads is kept.
const KEPT_AFTER_END: Duration = Duration::from_secs(60);
/// What the log of a run may hold beside what the program writes, in bytes.
const LOG_SLACK: u64 = 1 << 20;

/// A run that is here.
struct Here {
    log: LiveLog,
    input: mpsc::Sender<Input>,
    stop: CancellationToken,
}

/// The runs that are here.
#[derive(Default)]
pub(crate) struct Runs {
    all: Mutex<HashMap<RunId, Arc<Here>>>,
}

impl Runs {
    fn lock(&self) -> MutexGuard<'_, HashMap<RunId, Arc<Here>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, id: RunId) -> Result<Arc<Here>, Problem> {
        let here = self.lock().get(&id).map(Arc::clone);
        here.ok_or_else(|| Problem::not_found("run", id))
    }

    /// How many have not ended.
    pub(crate) fn going(&self) -> usize {
        let all = self.lock();
        all.values().filter(|here| !here.log.has_ended()).count()
    }

    /// Stops all of them.
    pub(crate) fn stop_all(&self) {
        for here in self.lock().values() {
            here.stop.cancel();
        }
    }
}

impl Agent {
    /// Starts a run; what becomes of it is in its log.
    ///
    /// # Errors
    /// If this host has the run already, or has no slot.
    pub fn start_run(self: &Arc<Self>, call: StartRun) -> Result<(), Problem> {
        let (input, inputs) = mpsc::channel(QUEUED_INPUTS);
        let output = call.request.output_bytes.saturating_mul(2);
        let log_bytes = output.saturating_add(fetch::MAX_BYTES + LOG_SLACK);
        let here = Arc::new(Here {
            log: LiveLog::new(usize::try_from(log_bytes).unwrap_or(usize::MAX)),
            input,
            stop: CancellationToken::new(),
        });
        {
            let mut all = self.runs.lock();
            if all.contains_key(&call.id) {
                return Err(Problem::new(
                    Code::Conflict,
                    format!("{} is here already", call.id),
                ));
            }
            let going = all.values().filter(|here| !here.log.has_ended()).count();
            if going >= self.config.slots as usize {
                return Err(Problem::new(
                    Code::Unavailable,
                    "this host has no free slot",
                ));
            }
            all.insert(call.id, Arc::clone(&here));
        }
        let agent = Arc::clone(self);
        self.tasks.spawn(async move {
            job::run(&agent, call.id, call.request, &here, inputs).await;
            drop(here);
            // Whoever follows it has the end by then, or never asks.
            tokio::select! {
                () = tokio::time::sleep(KEPT_AFTER_END) => {}
                () = agent.stop.cancelled() => {}
            }
            agent.runs.lock().remove(&call.id);
        });
        Ok(())
    }

    /// A part of a run's log.
    ///
    /// # Errors
    /// If the run is not here.
    pub async fn follow_run(&self, call: FollowRun) -> Result<LogPage, Problem> {
        let here = self.runs.get(call.id)?;
        Ok(here.log.read(call.read).await)
    }

    /// Sends something to a run's program; waits a while if it does not read.
    ///
    /// # Errors
    /// If the run is not here, takes no input any more, or does not read.
    pub async fn feed_run(&self, call: FeedRun) -> Result<(), Problem> {
        let here = self.runs.get(call.id)?;
        match here.input.send_timeout(call.input, FEED_TIMEOUT).await {
            Ok(()) => Ok(()),
            Err(mpsc::error::SendTimeoutError::Closed(_)) => Err(Problem::new(
                Code::Conflict,
                "the run takes no input any more",
            )),
            Err(mpsc::error::SendTimeoutError::Timeout(_)) => {
                let problem = Problem::new(Code::Conflict, "the program does not read its input");
                Err(problem.retry_after(FEED_TIMEOUT))
            }
        }
    }

    /// Ends a run; one that is over or unknown stays so.
    pub fn stop_run(&self, call: &StopRun) {
        if let Ok(here) = self.runs.get(call.id) {
            here.stop.cancel();
        }
    }
}

/// How a run ends that was stopped: by its owner, or because the host goes down.
fn stopped(agent: &Agent) -> End {
    if agent.stop.is_cancelled() {
        let problem = Problem::new(Code::Unavailable, "the host went down while it ran");
        return End::Failed(problem.with_remedy("ask for it again"));
    }
    End::Cancelled
}
