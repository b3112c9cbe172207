//! A host that has no microVMs, and says what tests want.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use firelane_model::id::{SandboxId, SnapshotId};
use firelane_model::sandbox::Reason;
use firelane_store::bus::{Calls, Server, SharedBus};
use firelane_wire::bus::{
    DropSnapshot, HaveSnapshots, LookSandbox, MakeSandbox, ReportHost, SandboxOrder, SandboxSeen,
    SaveSandbox, SnapshotHere, SplitSandbox, TellSandbox,
};
use firelane_wire::host::Host as Told;
use firelane_wire::problem::{Code, Problem};
use firelane_wire::sandbox::SandboxState;
use tokio::sync::watch;

/// What the host has, and how it is to behave.
#[derive(Default)]
pub(super) struct Has {
    sandboxes: HashMap<SandboxId, watch::Sender<SandboxSeen>>,
    pub(super) snapshots: BTreeMap<SnapshotId, SnapshotHere>,
    /// The answer to whoever wants something made, changed or removed.
    pub(super) refuses: Option<Problem>,
    /// What it makes it does not tell of.
    pub(super) loses_answers: bool,
    /// Of the forks asked for at once, this one fails.
    pub(super) failing_fork: Option<usize>,
    /// Templates of what was made.
    pub(super) made: Vec<String>,
}

pub(super) struct Host {
    name: String,
    has: Arc<Mutex<Has>>,
    serving: Option<Server>,
}

impl Host {
    pub(super) async fn start(bus: &SharedBus, name: &str) -> Host {
        let mut host = Host {
            name: name.into(),
            has: Arc::default(),
            serving: None,
        };
        host.serve(bus).await;
        host
    }

    /// The same, as another coordinator meets it.
    pub(super) async fn meet(&mut self, bus: &SharedBus) -> Host {
        let mut host = Host {
            name: self.name.clone(),
            has: Arc::clone(&self.has),
            serving: None,
        };
        host.serve(bus).await;
        host
    }

    pub(super) fn has(&self) -> MutexGuard<'_, Has> {
        self.has.lock().unwrap()
    }

    /// It answers nobody any more.
    pub(super) fn fall_silent(&mut self) {
        self.serving = None;
    }

    pub(super) async fn report(&self, bus: &SharedBus) {
        let host = Told {
            id: self.name.clone(),
            driver: "qemu".into(),
            acceleration: "tcg".into(),
            slots: 1,
            running: 0,
            sandboxes: 0,
            pools: Vec::new(),
            standing: Default::default(),
            version: "1".into(),
        };
        let draining = false;
        let calls = Calls::of(Arc::clone(bus), "coordinator");
        calls.ask(&ReportHost { host, draining }).await.unwrap();
    }

    /// A sandbox becomes this by itself.
    pub(super) fn becomes(&self, id: SandboxId, state: SandboxState, reason: Option<Reason>) {
        self.has().change(id, |seen| {
            seen.state = state;
            seen.reason = reason;
        });
    }

    /// A sandbox has used so much, and tells it.
    pub(super) fn uses(&self, id: SandboxId, cpu_us: u64) {
        self.has().change(id, |seen| seen.cpu_us = cpu_us);
    }

    /// Where a sandbox is, as it sees it.
    pub(super) fn state(&self, id: SandboxId) -> SandboxState {
        self.has().sandboxes[&id].borrow().state
    }

    /// Its service is another one, that knows nothing.
    pub(super) fn forget(&self) {
        self.has().sandboxes.clear();
    }

    async fn serve(&mut self, bus: &SharedBus) {
        let mut server = Server::new(Arc::clone(bus), &format!("agent.{}", self.name));
        let has = Arc::clone(&self.has);
        macro_rules! serve {
            ($($call:ty => $answer:expr;)*) => {$({
                let has = Arc::clone(&has);
                let answer = move |call: $call| {
                    let answer: fn(&mut Has, $call) -> _ = $answer;
                    std::future::ready(answer(&mut has.lock().unwrap(), call))
                };
                server.on(answer).await.unwrap();
            })*};
        }
        serve! {
            MakeSandbox => |has, call| has.make(call);
            TellSandbox => |has, call| has.tell(&call);
            SplitSandbox => |has, call| has.split(&call);
            SaveSandbox => |has, call| has.save(&call);
            HaveSnapshots => |has, _call| Ok(has.snapshots.values().cloned().collect());
            DropSnapshot => |has, call| {
                has.willing()?;
                has.snapshots.remove(&call.id);
                Ok(())
            };
        }
        let look = move |call: LookSandbox| {
            let has = Arc::clone(&has);
            async move {
                let found = has
                    .lock()
                    .unwrap()
                    .sandboxes
                    .get(&call.sandbox.id)
                    .map(watch::Sender::subscribe);
                let mut seen = found.ok_or_else(|| absent(call.sandbox.id))?;
                if call.wait_ms == 0 {
                    return Ok(seen.borrow().clone());
                }
                let news = seen.wait_for(|seen| seen.revision != call.revision);
                let news = news.await.map(|seen| seen.clone());
                news.map_err(|_| absent(call.sandbox.id))
            }
        };
        server.on(look).await.unwrap();
        self.serving = Some(server);
    }
}

impl Has {
    fn willing(&self) -> Result<(), Problem> {
        self.refuses.clone().map_or(Ok(()), Err)
    }

    fn change(&mut self, id: SandboxId, change: impl FnOnce(&mut SandboxSeen)) -> SandboxSeen {
        let sandbox = &self.sandboxes[&id];
        sandbox.send_modify(|seen| {
            change(seen);
            seen.revision += 1;
        });
        sandbox.borrow().clone()
    }

    fn make(&mut self, call: MakeSandbox) -> Result<SandboxSeen, Problem> {
        self.willing()?;
        self.made.push(call.request.template);
        let seen = self.add(call.sandbox.id);
        match self.loses_answers {
            true => Err(Problem::new(Code::Unavailable, "no answer in time")),
            false => Ok(seen),
        }
    }

    fn add(&mut self, id: SandboxId) -> SandboxSeen {
        let seen = SandboxSeen {
            state: SandboxState::Running,
            reason: None,
            revision: 1,
            cpu_us: 0,
            network: None,
        };
        self.sandboxes.insert(id, watch::Sender::new(seen.clone()));
        seen
    }

    fn tell(&mut self, call: &TellSandbox) -> Result<SandboxSeen, Problem> {
        self.willing()?;
        let id = call.sandbox.id;
        if !self.sandboxes.contains_key(&id) {
            return Err(absent(id));
        }
        Ok(self.change(id, |seen| match call.order {
            SandboxOrder::Pause => seen.state = SandboxState::Paused,
            SandboxOrder::Destroy => {
                seen.state = SandboxState::Destroyed;
                seen.reason = Some(Reason::Asked);
            }
            _ => seen.state = SandboxState::Running,
        }))
    }

    fn split(&mut self, call: &SplitSandbox) -> Result<Vec<Result<SandboxSeen, Problem>>, Problem> {
        self.willing()?;
        let failing = self.failing_fork;
        let forks = call.forks.iter().enumerate();
        Ok(forks
            .map(|(number, id)| match failing == Some(number) {
                true => Err(Problem::new(Code::StorageFull, "this fork has no room")),
                false => Ok(self.add(*id)),
            })
            .collect())
    }

    fn save(&mut self, call: &SaveSandbox) -> Result<SnapshotHere, Problem> {
        self.willing()?;
        let here = SnapshotHere {
            id: call.snapshot,
            tenant: call.sandbox.tenant.clone(),
            template: "python".into(),
            size_bytes: 4096,
        };
        self.snapshots.insert(call.snapshot, here.clone());
        Ok(here)
    }
}

fn absent(id: SandboxId) -> Problem {
    Problem::not_found("sandbox", id)
}
