//! Follows each sandbox to its end, also one from before this process.

use std::sync::Arc;
use std::time::Duration;

use firelane_model::concurrency::Pass;
use firelane_model::id::{KeyId, SandboxId};
use firelane_model::sandbox::Reason;
use firelane_store::db::{DbError, PageOf, Sandbox as Record};
use firelane_wire::bus::{LookSandbox, SandboxRef};
use firelane_wire::problem::{Code, Problem};
use tokio::time::{Instant, sleep, timeout};

use super::live::Live;
use super::record::state;
use crate::service::{Coordinator, State};

/// How long a host is asked to wait for something new, in milliseconds.
const LOOK_MS: u64 = 20_000;
/// Pause before a host that did not answer is asked again.
const RETRY: Duration = Duration::from_millis(500);
/// How long a host may be silent before its sandboxes count as lost: six times its lease, since what
/// is lost cannot come back.
pub(super) const SILENCE: Duration = Duration::from_secs(60);
/// How long the last word of a host is waited for when this service ends.
const LAST_WORD: Duration = Duration::from_secs(2);
/// Sandboxes that are taken up from one read.
const REVIVED_AT_ONCE: u32 = 100;

impl Coordinator {
    /// Follows a sandbox, from a revision on, in the background.
    pub(super) fn watch(self: &Arc<Self>, live: Arc<Live>, revision: u64) {
        let this = Arc::clone(self);
        self.tasks.spawn(async move {
            let following = this.follow_sandbox(&live, revision);
            tokio::select! {
                biased;
                () = following => return,
                () = this.over.cancelled() => {}
            }
            // Its host went down before this: whatever it says now is the end, or there is none.
            let look = this.look_sandbox(&live, 0, 0);
            if let Ok(Ok(seen)) = timeout(LAST_WORD, look).await {
                drop(this.observe(&live, seen, None, None).await);
            }
        });
    }

    async fn follow_sandbox(&self, live: &Live, mut revision: u64) {
        let mut heard = Instant::now();
        loop {
            let problem = match self.look_sandbox(live, revision, LOOK_MS).await {
                Ok(seen) => {
                    heard = Instant::now();
                    let seen_revision = seen.revision;
                    match self.observe(live, seen, None, None).await {
                        Ok(record) if !record.live => return,
                        Ok(_) => {
                            revision = seen_revision;
                            continue;
                        }
                        // Not on disk: it is looked at again, and then written.
                        Err(problem) => problem,
                    }
                }
                Err(problem) if problem.code == Code::NotFound => match self.lose(live).await {
                    Ok(()) => return,
                    Err(problem) => problem,
                },
                Err(problem) => {
                    let there = self.state().hosts.is_there(&live.host, Instant::now());
                    if !there && heard.elapsed() >= SILENCE && self.lose(live).await.is_ok() {
                        return;
                    }
                    problem
                }
            };
            tracing::debug!(sandbox = %live.of.id, %problem, "a sandbox cannot be followed now");
            sleep(RETRY).await;
        }
    }

    pub(super) async fn look_sandbox(
        &self,
        live: &Live,
        revision: u64,
        wait_ms: u64,
    ) -> Result<firelane_wire::bus::SandboxSeen, Problem> {
        let look = LookSandbox {
            sandbox: live.of.clone(),
            revision,
            wait_ms,
        };
        self.agent(&live.host).ask(&look).await
    }

    /// Writes down that a host does not have a sandbox any more.
    pub(super) async fn lose(&self, live: &Live) -> Result<(), Problem> {
        let reason = match live.now().unwanted {
            true => Reason::Asked,
            false => Reason::HostRestarted,
        };
        let record = self.end_sandbox(live, reason).await?;
        if super::record::reason(&record) == Some(Reason::HostRestarted) {
            tracing::info!(sandbox = %live.of.id, tenant = live.of.tenant, host = live.host,
                "a sandbox was lost: the service of its host was restarted, or is silent");
        }
        Ok(())
    }

    /// Follows again every sandbox that was there when the service last ended.
    pub(crate) async fn revive_sandboxes(self: &Arc<Self>) -> Result<(), DbError> {
        let mut page = PageOf::first(REVIVED_AT_ONCE);
        loop {
            let found = self.db.read(move |rx| rx.live_sandboxes(page)).await?;
            for record in &found.items {
                self.revive_sandbox(record);
            }
            if found.next.is_none() {
                return Ok(());
            }
            page.after = found.next;
        }
    }

    fn revive_sandbox(self: &Arc<Self>, record: &Record) {
        let Ok(id) = record.id.parse::<SandboxId>() else {
            tracing::error!(
                sandbox = record.id,
                "the record of a sandbox cannot be read"
            );
            return;
        };
        let key = record.key_id.as_deref().map(str::parse);
        let key = key.and_then(Result::ok);
        let live = {
            let mut state = self.state();
            let pass = key.and_then(|key| again(&mut state, key));
            let of = SandboxRef {
                tenant: record.tenant.clone(),
                id,
            };
            state.hold(of, key, record.host.clone(), pass)
        };
        if let Ok(state) = state(record) {
            live.now().state = state;
        }
        self.watch(live, record.revision);
    }
}

/// Counts one that was admitted before, whatever its key may have now.
fn again(state: &mut State, key: KeyId) -> Option<Pass<KeyId>> {
    state.going.enter(key, u32::MAX).ok()
}
