//! VMMs that were started ahead of need: each waits for the next restore of its template.
//!
//! ```text
//!   restore ── takes one, or starts its own ── done ── another one is started in its place
//!   nobody takes it for a minute, its template changes, the service ends ── it is ended
//! ```
//!
//! They hold a VMM's own memory and no guest's: 15 MiB with QEMU, 3 with Firecracker. Where the template has a network,
//! each holds one of its own, open and fenced.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use firelane_vmm::driver::{Driver, Machine, StandBy};
use firelane_vmm::timeline::Timeline;
use firelane_wire::host;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clone::{CloneError, connected};
use crate::network::{self, GuestNetwork};
use crate::snapshot;
use crate::workshop::{Prepared, new_id};

/// How long one waits for a restore.
const IDLE: Duration = Duration::from_secs(60);

/// A VMM that waits, and its network, which no guest has used.
pub(crate) struct Stand {
    pub(crate) vmm: Box<dyn StandBy>,
    pub(crate) network: Option<GuestNetwork>,
}

/// The VMMs that wait on this host.
#[derive(Clone)]
pub(crate) struct Standing(Arc<Inner>);

struct Inner {
    driver: Arc<dyn Driver>,
    /// Most that wait for one template; none, if it is 0.
    most: usize,
    state: Mutex<State>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

#[derive(Default)]
struct State {
    waiting: HashMap<String, Waiting>,
    /// Number of the next one.
    next: u64,
    taken: u64,
    missed: u64,
}

/// Those of one template.
struct Waiting {
    prepared: Arc<Prepared>,
    vmms: VecDeque<(u64, Stand)>,
    starting: usize,
}

impl Standing {
    /// Up to `most` for each template.
    pub(crate) fn new(driver: Arc<dyn Driver>, most: u32) -> Standing {
        Standing(Arc::new(Inner {
            driver,
            most: usize::try_from(most).unwrap_or(usize::MAX),
            state: Mutex::default(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }))
    }

    /// One that waits for this snapshot. Those that have died meanwhile are no use to anybody.
    pub(crate) fn take(&self, prepared: &Arc<Prepared>) -> Option<Stand> {
        if self.0.most == 0 {
            return None;
        }
        let mut useless = Vec::new();
        let mut state = self.0.lock();
        let waiting = state.waiting.get_mut(prepared.name());
        let taken = waiting.and_then(|waiting| {
            if !Arc::ptr_eq(&waiting.prepared, prepared) {
                useless.extend(waiting.vmms.drain(..));
            }
            while let Some((number, stand)) = waiting.vmms.pop_front() {
                if stand.vmm.lives() {
                    return Some(stand);
                }
                useless.push((number, stand));
            }
            None
        });
        match taken {
            Some(_) => state.taken += 1,
            None => state.missed += 1,
        }
        drop(state);
        for (_, stand) in useless {
            self.0.tasks.spawn(discard(stand));
        }
        taken
    }

    /// Has another one started for the next restore of this snapshot, unless enough wait.
    pub(crate) fn refill(&self, prepared: &Arc<Prepared>) {
        if self.0.most == 0 || self.0.stop.is_cancelled() {
            return;
        }
        let mut state = self.0.lock();
        let name = prepared.name().to_owned();
        let waiting = state.waiting.entry(name).or_insert_with(|| Waiting {
            prepared: Arc::clone(prepared),
            vmms: VecDeque::new(),
            starting: 0,
        });
        let mut useless = VecDeque::new();
        if !Arc::ptr_eq(&waiting.prepared, prepared) {
            waiting.prepared = Arc::clone(prepared);
            waiting.starting = 0;
            useless = std::mem::take(&mut waiting.vmms);
        }
        let wanted = waiting.vmms.len() + waiting.starting < self.0.most;
        waiting.starting += usize::from(wanted);
        drop(state);
        for (_, stand) in useless {
            self.0.tasks.spawn(discard(stand));
        }
        if wanted {
            let (inner, prepared) = (Arc::clone(&self.0), Arc::clone(prepared));
            self.0.tasks.spawn(inner.start(prepared));
        }
    }

    /// Ends those of a template that is gone.
    pub(crate) fn forget(&self, template: &str) {
        let forgotten = self.0.lock().waiting.remove(template);
        for (_, stand) in forgotten.into_iter().flat_map(|waiting| waiting.vmms) {
            self.0.tasks.spawn(discard(stand));
        }
    }

    /// What waits, and how often one was there.
    pub(crate) fn look(&self) -> host::Standing {
        let state = self.0.lock();
        let waiting = state.waiting.values().map(|waiting| waiting.vmms.len());
        host::Standing {
            waiting: u32::try_from(waiting.sum::<usize>()).unwrap_or(u32::MAX),
            hits: state.taken,
            misses: state.missed,
        }
    }

    /// Ends all, and waits until nothing of them is left.
    pub(crate) async fn close(&self) {
        self.0.stop.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }
}

impl Inner {
    /// Starts one, and lets it wait. Whoever takes it does so behind our back.
    async fn start(self: Arc<Self>, prepared: Arc<Prepared>) {
        let machine = Machine {
            id: new_id(),
            ..prepared.machine.clone()
        };
        let started = self.launch(&machine, &prepared).await;
        let number = match started.map(|stand| self.put(&prepared, stand)) {
            Ok(Ok(number)) => number,
            // The template has changed meanwhile.
            Ok(Err(stand)) => return discard(stand).await,
            Err(error) => {
                if let Some(waiting) = of(&mut self.lock(), &prepared) {
                    waiting.starting -= 1;
                }
                // The next restore starts its own, and tells what is wrong.
                tracing::warn!(%error, "cannot start a VMM ahead of need");
                return;
            }
        };
        tokio::select! {
            () = sleep(IDLE) => {}
            () = self.stop.cancelled() => {}
        }
        if let Some(stand) = self.withdraw(prepared.name(), number) {
            discard(stand).await;
        }
    }

    async fn launch(&self, machine: &Machine, prepared: &Prepared) -> Result<Stand, CloneError> {
        let (network, machine) = connected(machine, prepared.reach.as_ref()).await?;
        let files = snapshot::files(&prepared.snapshot);
        let mut unseen = Timeline::start();
        match self.driver.stand_by(&machine, &files, &mut unseen).await {
            Ok(vmm) => Ok(Stand { vmm, network }),
            Err(error) => {
                network::close(network).await;
                Err(error.into())
            }
        }
    }

    /// Lets one wait; its number. It comes back if nobody can want it.
    fn put(&self, prepared: &Arc<Prepared>, stand: Stand) -> Result<u64, Stand> {
        let mut state = self.lock();
        let number = state.next;
        let Some(waiting) = of(&mut state, prepared) else {
            return Err(stand);
        };
        waiting.starting -= 1;
        waiting.vmms.push_back((number, stand));
        state.next += 1;
        Ok(number)
    }

    fn withdraw(&self, name: &str, number: u64) -> Option<Stand> {
        let mut state = self.lock();
        let vmms = &mut state.waiting.get_mut(name)?.vmms;
        let place = vmms.iter().position(|(own, _)| *own == number)?;
        vmms.remove(place).map(|(_, stand)| stand)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Those that wait for this snapshot.
fn of<'a>(state: &'a mut State, prepared: &Arc<Prepared>) -> Option<&'a mut Waiting> {
    let waiting = state.waiting.get_mut(prepared.name())?;
    Arc::ptr_eq(&waiting.prepared, prepared).then_some(waiting)
}

async fn discard(stand: Stand) {
    if let Err(error) = stand.vmm.discard().await {
        tracing::warn!(%error, "left to the next sweep");
    }
    network::close(stand.network).await;
}
