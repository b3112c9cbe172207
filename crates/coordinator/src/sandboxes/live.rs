//! What is in memory of a sandbox that is not gone.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use firelane_model::concurrency::Pass;
use firelane_model::id::{KeyId, SandboxId, SnapshotId};
use firelane_model::sandbox::Reason;
use firelane_wire::bus::{Caller, SandboxRef};
use firelane_wire::problem::Problem;
use firelane_wire::sandbox::SandboxState;
use tokio::time::Instant;

use crate::service::{Coordinator, State};

/// The sandboxes that are not gone, and what is under way with snapshots.
#[derive(Default)]
pub(crate) struct Sandboxes {
    pub(super) live: HashMap<SandboxId, Arc<Live>>,
    /// Snapshots that a host takes or has taken, and whose records are not written yet.
    pub(super) saving: HashSet<SnapshotId>,
}

/// A sandbox that is not gone.
pub(super) struct Live {
    pub(super) of: SandboxRef,
    pub(super) key: Option<KeyId>,
    pub(super) host: String,
    now: Mutex<Now>,
}

/// What changes.
pub(super) struct Now {
    pub(super) state: SandboxState,
    /// Somebody asked for its end.
    pub(super) unwanted: bool,
    /// Counts it among those that its key has going.
    pass: Option<Pass<KeyId>>,
}

impl Live {
    pub(super) fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sandboxes {
    /// How many there are in each state.
    pub(crate) fn by_state(&self) -> BTreeMap<&'static str, u64> {
        let mut counts = BTreeMap::new();
        for live in self.live.values() {
            *counts.entry(live.now().state.name()).or_insert(0) += 1;
        }
        counts
    }

    fn on(&self, host: &str) -> usize {
        let there = self.live.values().filter(|live| live.host == host);
        there.count()
    }
}

impl State {
    /// The host that gets the next sandbox: of those that take work the one that has the fewest.
    pub(super) fn host_for_sandbox(&self, now: Instant) -> Option<String> {
        let able = self.hosts.able(now);
        let least = able.min_by_key(|host| self.sandboxes.on(host))?;
        Some(least.to_owned())
    }

    /// Holds a sandbox in memory from now on.
    pub(super) fn hold(
        &mut self,
        of: SandboxRef,
        key: Option<KeyId>,
        host: String,
        pass: Option<Pass<KeyId>>,
    ) -> Arc<Live> {
        let id = of.id;
        let now = Mutex::new(Now {
            state: SandboxState::Creating,
            unwanted: false,
            pass,
        });
        let live = Arc::new(Live { of, key, host, now });
        self.sandboxes.live.insert(id, Arc::clone(&live));
        live
    }
}

impl Coordinator {
    /// A sandbox that is not gone, and whose it is.
    pub(super) fn live_sandbox(&self, tenant: &str, id: SandboxId) -> Option<Arc<Live>> {
        let found = self.state().sandboxes.live.get(&id).map(Arc::clone);
        found.filter(|live| live.of.tenant == tenant)
    }

    /// Forgets a sandbox whose record says that it is gone, or that has none. Whether it was known.
    pub(super) fn let_go(&self, live: &Live, reason: Option<Reason>) -> bool {
        let mut state = self.state();
        if state.sandboxes.live.remove(&live.of.id).is_none() {
            return false;
        }
        let pass = live.now().pass.take();
        if let Some(pass) = pass {
            state.going.leave(pass);
        }
        drop(state);
        if let Some(reason) = reason {
            self.metrics.sandbox_ended(reason);
        }
        true
    }

    /// Refuses who may have no new sandbox now; otherwise what counts it among those of its key.
    pub(super) fn admit_sandbox(
        &self,
        state: &mut State,
        caller: &Caller,
    ) -> Result<Option<Pass<KeyId>>, Problem> {
        state.keys.admit(caller)?;
        state.pass(caller)
    }
}
