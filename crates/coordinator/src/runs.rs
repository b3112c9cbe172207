//! What callers do with runs.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use firelane_model::concurrency::Pass;
use firelane_model::id::{KeyId, RunId};
use firelane_model::queue::{self, Entry as Queued};
use firelane_store::db::RunKey;
use firelane_wire::bus::{
    AwaitRun, Awaited, Caller, CancelRun, FeedRun, GetRun, ReadRun, SendRun, StopRun, SubmitRun,
    Submitted,
};
use firelane_wire::event::{End, LogPage};
use firelane_wire::problem::{Code, Problem};
use firelane_wire::run::{Place, Run, RunRequest, RunState};
use tokio::time::Instant;
use uuid::Uuid;

use crate::entry::Entry;
use crate::metrics::Steps;
use crate::records;
use crate::room::{self, Full, Held, Waiting};
use crate::service::{Coordinator, State};

impl Coordinator {
    /// Puts a run into the queue. One that must survive is on disk before.
    pub(crate) async fn submit(self: Arc<Self>, call: SubmitRun) -> Result<Submitted, Problem> {
        let SubmitRun {
            caller,
            request,
            durable,
            idempotency_key,
            traceparent,
        } = call;
        request.check()?;
        let fingerprint = idempotency_key.map(|key| (key, fingerprint(&request)));
        // Before any limit: who only asks again takes nothing.
        if let Some(known) = self.known(&caller, fingerprint.as_ref()).await? {
            return Ok(known);
        }
        if self.stop.is_cancelled() {
            return Err(going_down());
        }
        let id = RunId::from_bits(Uuid::now_v7().as_u128());
        let (entry, held) = {
            let mut state = self.state();
            state.keys.admit(&caller)?;
            let held = state.room_for(&caller.tenant, room::size(&request));
            let held = held.map_err(|full| self.refused(&state, &full))?;
            let pass = state.pass(&caller)?;
            let mut entry = Entry::new(id, caller, request, durable, pass);
            entry.traceparent = traceparent;
            (Arc::new(entry), held)
        };
        if durable {
            // Whoever learns its id from the record finds it here.
            self.state().runs.insert(id, Arc::clone(&entry));
            let kept = self.keep(&entry, fingerprint).await;
            let kept = kept.map_err(|error| records::problem(&error));
            let known = kept.and_then(meaning);
            if !matches!(known, Ok(None)) {
                self.state().runs.remove(&id);
                self.give_back(&entry);
            }
            if let Some(known) = known? {
                return Ok(known);
            }
        }
        let place = match self.enqueue(&entry, held) {
            Ok(place) => place,
            Err(problem) => {
                if durable {
                    // It is on record already: as one that was turned away.
                    self.finish(&entry, &End::Failed(problem.clone()));
                }
                return Err(problem);
            }
        };
        Ok(Submitted {
            id,
            place,
            replayed: false,
        })
    }

    /// The run that an idempotency key means already, for the same request.
    async fn known(
        &self,
        caller: &Caller,
        key: Option<&(String, [u8; 32])>,
    ) -> Result<Option<Submitted>, Problem> {
        let Some((key, fingerprint)) = key.cloned() else {
            return Ok(None);
        };
        let tenant = caller.tenant.clone();
        let known = self
            .db
            .read(move |rx| rx.run_key(&tenant, &key, &fingerprint));
        meaning(known.await.map_err(|error| records::problem(&error))?)
    }

    /// Ends what waits and would be forgotten with this process.
    pub(crate) fn turn_away(self: &Arc<Self>) {
        let forgotten: Vec<Arc<Entry>> = {
            let mut state = self.state();
            let mut forgotten: Vec<Arc<Entry>> = state.runs.values().map(Arc::clone).collect();
            forgotten.retain(|entry| !entry.durable && state.queue.cancel(entry.id).is_some());
            forgotten
        };
        for entry in forgotten {
            self.finish(&entry, &End::Failed(going_down()));
        }
    }

    /// Frees what a run that is not queued had of its key's limits.
    fn give_back(&self, entry: &Entry) {
        let pass = entry.now().pass.take();
        if let Some(pass) = pass {
            self.state().going.leave(pass);
        }
    }

    /// Puts a run into the queue, where there is room for it.
    pub(crate) fn enqueue(&self, entry: &Arc<Entry>, held: Held) -> Result<Place, Problem> {
        let (deadline_ms, priority) = {
            let now = entry.now();
            let request = now.request.as_ref();
            let deadline_ms = request.and_then(|request| request.deadline_ms);
            (deadline_ms, request.map_or(0, |request| request.priority))
        };
        let mut queued = Queued {
            id: entry.id,
            tenant: entry.caller.tenant.clone(),
            weight: entry.caller.weight.try_into().unwrap_or(NonZeroU32::MIN),
            // From signed to unsigned, in the same order.
            priority: priority.cast_unsigned() ^ 0x80,
            cost: NonZeroU32::MIN,
            deadline: deadline_ms.map(|ms| self.clock() + Duration::from_millis(ms)),
            item: Waiting {
                entry: Arc::clone(entry),
                held,
            },
        };
        let mut state = self.state();
        // From here on the queue counts it, or nobody does.
        queued.item.held.arrive();
        match state.queue.push(queued) {
            Ok(queue::Place { ahead }) => {
                state.runs.insert(entry.id, Arc::clone(entry));
                let place = self.place(&state, ahead);
                drop(state);
                self.work.notify_one();
                Ok(place)
            }
            Err(refused) => {
                let problem = self.refused(&state, &refused.into());
                drop(state);
                self.give_back(entry);
                Err(problem)
            }
        }
    }

    fn refused(&self, state: &State, full: &Full) -> Problem {
        let eta = self.eta(state, state.queue.len());
        let cause = match eta {
            Duration::MAX => format!("{full}; no host serves any now"),
            eta => format!("{full}; about {} ms until one is served", eta.as_millis()),
        };
        Problem::new(Code::QueueFull, cause).retry_after(state.service.mean())
    }

    /// A place with that many ahead of it.
    pub(crate) fn place(&self, state: &State, ahead: usize) -> Place {
        let eta = self.eta(state, ahead);
        Place {
            position: ahead as u64,
            eta_ms: u64::try_from(eta.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// How long one waits that has this many ahead of it; nothing, if a slot is free for it.
    pub(crate) fn eta(&self, state: &State, ahead: usize) -> Duration {
        let slots = state.hosts.slots(Instant::now()) as usize;
        let free = slots.saturating_sub(state.hosts.given() as usize);
        if ahead < free {
            return Duration::ZERO;
        }
        let wait = state.service.wait(ahead - free, slots);
        wait.unwrap_or(Duration::MAX)
    }

    /// A run that is in memory, and whose it is.
    fn find(&self, tenant: &str, id: RunId) -> Option<Arc<Entry>> {
        let found = self.state().runs.get(&id).map(Arc::clone);
        found.filter(|entry| entry.caller.tenant == tenant)
    }

    /// A part of a run's log.
    pub(crate) async fn read(self: Arc<Self>, call: ReadRun) -> Result<LogPage, Problem> {
        if let Some(entry) = self.find(&call.tenant, call.id) {
            return Ok(entry.log.read(call.read).await);
        }
        self.recorded(&call.tenant, call.id).await?;
        self.recorded_log(call.id, call.read).await
    }

    /// A part of a run's log, and at its end the run: who waits for it need not ask again, when it
    /// may have gone from memory to its record.
    pub(crate) async fn read_to_end(self: Arc<Self>, call: AwaitRun) -> Result<Awaited, Problem> {
        if let Some(entry) = self.find(&call.tenant, call.id) {
            let page = entry.log.read(call.read).await;
            let run = page.end.then(|| entry.shown(None));
            return Ok(Awaited { page, run });
        }
        let run = self.recorded(&call.tenant, call.id).await?;
        let page = self.recorded_log(call.id, call.read).await?;
        let run = page.end.then_some(run);
        Ok(Awaited { page, run })
    }

    /// A run as it is now.
    pub(crate) async fn get(self: Arc<Self>, call: GetRun) -> Result<Run, Problem> {
        let Some(entry) = self.find(&call.tenant, call.id) else {
            return self.recorded(&call.tenant, call.id).await;
        };
        let state = self.state();
        let ahead = state.queue.position(call.id);
        let place = ahead.map(|ahead| self.place(&state, ahead));
        Ok(entry.shown(place))
    }

    /// Sends something to the program of a run.
    pub(crate) async fn send(self: Arc<Self>, call: SendRun) -> Result<(), Problem> {
        let host = match self.find(&call.tenant, call.id) {
            Some(entry) => entry.now().host.clone(),
            None => self.recorded(&call.tenant, call.id).await.map(|_| None)?,
        };
        let Some(host) = host else {
            let cause = format!("{} is not running", call.id);
            return Err(Problem::new(Code::Conflict, cause));
        };
        let feed = FeedRun {
            id: call.id,
            input: call.input,
        };
        self.agent(&host).ask(&feed).await
    }

    /// Ends a run, wherever it is.
    pub(crate) async fn cancel(self: Arc<Self>, call: CancelRun) -> Result<Run, Problem> {
        let Some(entry) = self.find(&call.caller.tenant, call.id) else {
            return self.recorded(&call.caller.tenant, call.id).await;
        };
        let queued = self.state().queue.cancel(call.id).is_some();
        if queued {
            self.finish(&entry, &End::Cancelled);
        } else {
            let host = {
                let mut now = entry.now();
                now.cancelled = true;
                now.host.clone()
            };
            // Its end is in the log soon; a host that is not reached loses its lease.
            if let Some(host) = host {
                self.agent(&host).ask(&StopRun { id: call.id }).await?;
            }
        }
        Ok(entry.shown(None))
    }

    /// Writes the end of a run.
    pub(crate) fn finish(self: &Arc<Self>, entry: &Arc<Entry>, end: &End) {
        let (pass, started, host) = {
            let mut now = entry.now();
            if now.state.is_final() {
                return;
            }
            now.state = Entry::state_of(end);
            now.finished = Some(records::now());
            now.request = None;
            now.problem = match end {
                End::Failed(problem) => Some(problem.clone()),
                End::Expired => Some(expired()),
                End::Done { .. } | End::Cancelled => None,
            };
            (now.pass.take(), now.started_at, now.host.take())
        };
        {
            let mut state = self.state();
            if let Some(pass) = pass {
                state.going.leave(pass);
            }
            if let Some(host) = &host {
                state.hosts.free_slot(host);
            }
            if let (Some(started), RunState::Done) = (started, Entry::state_of(end)) {
                state.service.observe(started.elapsed());
            }
        }
        let steps = Steps::new(entry.asked, started, end);
        self.metrics.ended(entry, end, &steps);
        steps.tell(entry, end);
        self.tell_spans(entry, end, started, host.as_deref());
        entry.log.end(end.clone());
        self.work.notify_one();
        self.record(entry, end);
    }
}

impl State {
    /// Counts one more among the runs and sandboxes of a key, or refuses it.
    pub(crate) fn pass(&mut self, caller: &Caller) -> Result<Option<Pass<KeyId>>, Problem> {
        let Some((key, bound)) = caller.key.zip(caller.concurrency) else {
            return Ok(None);
        };
        self.going.enter(key, bound).map(Some).map_err(|at_bound| {
            let cause = format!("this key has {} runs or sandboxes", at_bound.bound);
            let problem = Problem::new(Code::RateLimited, cause);
            problem.retry_after(self.service.mean())
        })
    }
}

/// What an idempotency key means: a run, none yet, or another request.
fn meaning(key: RunKey) -> Result<Option<Submitted>, Problem> {
    match key {
        RunKey::New => Ok(None),
        RunKey::Same(id) => replayed(&id).map(Some),
        RunKey::Other => {
            let cause = "the idempotency key was used for another request";
            Err(Problem::new(Code::KeyReused, cause))
        }
    }
}

fn replayed(id: &str) -> Result<Submitted, Problem> {
    let id = id.parse();
    let id = id.map_err(|_| Problem::new(Code::Internal, "a record has no id of a run"))?;
    Ok(Submitted {
        id,
        place: Place {
            position: 0,
            eta_ms: 0,
        },
        replayed: true,
    })
}

/// Tells two requests apart that came with the same idempotency key.
fn fingerprint(request: &RunRequest) -> [u8; 32] {
    // The fields of a request are always written in the same order.
    let json = serde_json::to_vec(request).unwrap_or_default();
    blake3::hash(&json).into()
}

/// What a run that was not started in time says to who waits for it.
fn expired() -> Problem {
    let cause = "the run was not started before its deadline";
    Problem::new(Code::DeadlinePassed, cause).with_remedy("give it more time in deadline_ms")
}

pub(crate) fn going_down() -> Problem {
    let problem = Problem::new(Code::Unavailable, "the service is going down");
    problem.retry_after(Duration::from_secs(5))
}
