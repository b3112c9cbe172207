//! What is asked over the Bus of sandboxes and snapshots.

use std::sync::Arc;
use std::time::Duration;

use firelane_model::id::SnapshotId;
use firelane_wire::bus::{
    DropSnapshot, LookSandbox, MakeSandbox, SandboxOrder, SandboxRef, SandboxSeen, SaveSandbox,
    SnapshotHere, SplitSandbox, TellSandbox,
};
use firelane_wire::problem::Problem;
use firelane_wire::sandbox::NewSandbox;
use tokio::sync::oneshot;
use tokio::time::timeout;
use uuid::Uuid;

use super::act::Source;
use super::here::{Change, Here};
use super::keep::{Draft, Kept};
use super::owner::Owner;
use crate::Agent;
use crate::problem::internal;

/// Longest that somebody who looks is kept waiting.
const MAX_WAIT: Duration = Duration::from_secs(25);

impl Agent {
    /// Makes a sandbox; it can be used when this is answered.
    pub(crate) async fn make_sandbox(
        self: Arc<Self>,
        call: MakeSandbox,
    ) -> Result<SandboxSeen, Problem> {
        let MakeSandbox { sandbox, request } = call;
        request.check()?;
        let source = match request.snapshot {
            None => Source::Template,
            Some(id) => {
                let kept = self.verified(id, &sandbox.tenant).await?;
                Source::Kept(Box::new(kept))
            }
        };
        self.begin_sandbox(sandbox, request, source).await
    }

    async fn begin_sandbox(
        self: Arc<Self>,
        sandbox: SandboxRef,
        request: NewSandbox,
        source: Source,
    ) -> Result<SandboxSeen, Problem> {
        let (here, inbox) = Here::new(sandbox.id, sandbox.tenant, request);
        let here = Arc::new(here);
        self.sandboxes.enter(&here)?;
        let (reply, made) = oneshot::channel();
        Owner::start(&self, Arc::clone(&here), inbox, source, reply);
        made.await.unwrap_or_else(|_| Err(here.gone()))
    }

    /// How a sandbox is, once it is other than the asker knows.
    pub(crate) async fn look_sandbox(&self, call: LookSandbox) -> Result<SandboxSeen, Problem> {
        let here = self.sandboxes.find(&call.sandbox)?;
        let mut seen = here.seen.subscribe();
        let wait = Duration::from_millis(call.wait_ms).min(MAX_WAIT);
        // Whatever it is by then.
        let _ = timeout(wait, seen.wait_for(|seen| seen.revision != call.revision)).await;
        let now = seen.borrow().clone();
        Ok(now)
    }

    /// Changes a sandbox; it is so when this is answered.
    pub(crate) async fn tell_sandbox(&self, call: TellSandbox) -> Result<SandboxSeen, Problem> {
        let TellSandbox { sandbox, order } = call;
        let here = self.sandboxes.find(&sandbox)?;
        let change = match order {
            SandboxOrder::Pause => Change::Pause,
            SandboxOrder::Resume => Change::Resume,
            SandboxOrder::Destroy => Change::Destroy,
            SandboxOrder::Terms { ttl_s, idle } => {
                return here.set(ttl_s.map(Duration::from_secs), idle).await;
            }
            SandboxOrder::RollBack { snapshot } => {
                let kept = self.verified(snapshot, &sandbox.tenant).await?;
                Change::RollBack(Box::new(kept))
            }
        };
        here.change(change).await
    }

    /// Takes a snapshot and keeps it.
    pub(crate) async fn save_sandbox(&self, call: SaveSandbox) -> Result<SnapshotHere, Problem> {
        let here = self.sandboxes.find(&call.sandbox)?;
        let (draft, saved) = self.save(&here, call.snapshot).await?;
        let signing = self.sandboxes.keep.signing().clone();
        let cpu = self.workshop.driver().cpu();
        let kept = tokio::task::spawn_blocking(move || draft.keep(saved, &signing, &cpu)).await;
        let kept = kept.map_err(|error| internal(&error))?;
        let kept = kept.map_err(|error| internal(&error))?;
        kept.here().map_err(|error| internal(&error))
    }

    /// Makes sandboxes that begin as one is now, each by itself: some may fail.
    pub(crate) async fn split_sandbox(
        self: Arc<Self>,
        call: SplitSandbox,
    ) -> Result<Vec<Result<SandboxSeen, Problem>>, Problem> {
        let here = self.sandboxes.find(&call.sandbox)?;
        let id = SnapshotId::from_bits(Uuid::now_v7().as_u128());
        // Once all clones are made nobody needs the files.
        let (_draft, saved) = self.save(&here, id).await?;
        let making: Vec<_> = call
            .forks
            .into_iter()
            .map(|id| {
                let tenant = here.tenant.clone();
                let source = Source::Kept(Box::new(saved.clone()));
                let making = Arc::clone(&self).begin_sandbox(
                    SandboxRef { tenant, id },
                    here.forked(),
                    source,
                );
                tokio::spawn(making)
            })
            .collect();
        let mut forks = Vec::with_capacity(making.len());
        for fork in making {
            forks.push(fork.await.unwrap_or_else(|error| Err(internal(&error))));
        }
        Ok(forks)
    }

    async fn save(&self, here: &Here, id: SnapshotId) -> Result<(Draft, Kept), Problem> {
        let draft = self.sandboxes.keep.draft(id);
        let draft = draft.map_err(|error| internal(&error))?;
        here.change(Change::Save(draft.files())).await?;
        let made = here.made.get().ok_or_else(|| here.gone())?;
        let vmm = self.workshop.driver().identity(&made.machine).vmm;
        let saved = draft.saved(id, here, vmm)?;
        Ok((draft, saved))
    }

    /// A snapshot of this tenant that can be restored here.
    async fn verified(&self, id: SnapshotId, tenant: &str) -> Result<Kept, Problem> {
        let kept = self.sandboxes.keep.find(id, tenant)?;
        let driver = self.workshop.driver();
        let (vmm, cpu) = (driver.identity(&kept.machine()).vmm, driver.cpu());
        let signing = self.sandboxes.keep.signing().clone();
        let verified = tokio::task::spawn_blocking(move || kept.verified(&signing, &vmm, &cpu));
        verified.await.map_err(|error| internal(&error))?
    }

    /// The snapshots that are here.
    pub(crate) fn have_snapshots(&self) -> Result<Vec<SnapshotHere>, Problem> {
        self.sandboxes.keep.list().map_err(|error| internal(&error))
    }

    /// Removes a snapshot.
    pub(crate) fn drop_snapshot(&self, call: &DropSnapshot) -> Result<(), Problem> {
        let removed = self.sandboxes.keep.remove(call.id);
        removed.map_err(|error| internal(&error))
    }
}
