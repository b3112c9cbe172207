//! New sandboxes.

use std::sync::Arc;
use std::time::Duration;

use firelane_model::id::SandboxId;
use firelane_model::sandbox::Reason;
use firelane_store::db::AuditEntry;
use firelane_store::db::Sandbox as Record;
use firelane_wire::bus::{
    CreateSandbox, MakeSandbox, SLOW_CALL_S, SandboxOrder, SandboxRef, SandboxSeen, TellSandbox,
};
use firelane_wire::problem::{Code, Problem};
use firelane_wire::sandbox::Sandbox;
use tokio::time::Instant;
use uuid::Uuid;

use super::live::Live;
use super::record::{About, audit, new_record, shown};
use crate::records::{now, problem};
use crate::runs::going_down;
use crate::service::Coordinator;

/// What a host is given beside an ordinary call's time for what moves memory and disks.
pub(super) const SLOW: Duration = Duration::from_secs(SLOW_CALL_S);

/// A name that was never given before.
pub(super) fn new_id() -> SandboxId {
    SandboxId::from_bits(Uuid::now_v7().as_u128())
}

/// When something is over that was asked for at a time, in milliseconds since 1970.
pub(super) fn after(at: i64, ttl_s: u64) -> i64 {
    at.saturating_add_unsigned(ttl_s.saturating_mul(1000))
}

impl Coordinator {
    /// Makes a sandbox. It is on record before a host hears of it.
    pub(crate) async fn create_sandbox(
        self: Arc<Self>,
        call: CreateSandbox,
    ) -> Result<Sandbox, Problem> {
        let CreateSandbox {
            caller,
            mut request,
        } = call;
        request.check()?;
        if self.stop.is_cancelled() {
            return Err(going_down());
        }
        let mut wanted_host = None;
        if let Some(id) = request.snapshot {
            let snapshot = self.snapshot_record(&caller.tenant, id).await?;
            request.template = snapshot.template;
            wanted_host = Some(snapshot.host);
        }
        let live = {
            let mut state = self.state();
            let pass = self.admit_sandbox(&mut state, &caller)?;
            let at = Instant::now();
            let host = match wanted_host {
                Some(host) => Some(host).filter(|host| state.hosts.takes_work(host, at)),
                None => state.host_for_sandbox(at),
            };
            let Some(host) = host else {
                pass.into_iter().for_each(|pass| state.going.leave(pass));
                let cause = "no host takes a sandbox now";
                let problem = Problem::new(Code::Unavailable, cause);
                return Err(problem.retry_after(Duration::from_secs(5)));
            };
            let id = new_id();
            let tenant = caller.tenant.clone();
            state.hold(SandboxRef { tenant, id }, caller.key, host, pass)
        };
        let about = About {
            template: request.template.clone(),
            snapshot: request.snapshot,
            idle: request.idle,
            base: request.snapshot,
            network: None,
        };
        let created = now().as_millisecond();
        let times = (created, Some(after(created, request.ttl_s)));
        let record = new_record(&live, &about, None, request.labels.clone(), times);
        let row = audit(&caller, "sandbox.create", &live.of.id, "{}".into());
        if let Err(problem) = self.insert_sandboxes(vec![(record, row)]).await {
            self.let_go(&live, None);
            return Err(problem);
        }
        let sandbox = live.of.clone();
        let make = MakeSandbox { sandbox, request };
        let made = self.agent(&live.host).ask_for(&make, SLOW).await;
        self.made(&live, made).await
    }

    /// Has sandboxes on disk with their rows of the audit, all of them or none.
    pub(super) async fn insert_sandboxes(
        &self,
        new: Vec<(Record, AuditEntry)>,
    ) -> Result<(), Problem> {
        let inserted = self.db.write(move |tx| {
            for (record, audit) in &new {
                tx.insert_sandbox(record)?;
                tx.append_audit(audit)?;
            }
            Ok(())
        });
        inserted.await.map_err(|error| problem(&error))
    }

    /// Writes down what became of a sandbox that a host was to make, and follows it from here on.
    pub(super) async fn made(
        self: &Arc<Self>,
        live: &Arc<Live>,
        made: Result<SandboxSeen, Problem>,
    ) -> Result<Sandbox, Problem> {
        let seen = match made {
            Ok(seen) => seen,
            Err(problem) => {
                if problem.code == Code::Unavailable {
                    // It may be made all the same: nobody knows of it then.
                    self.abandon(live);
                }
                self.end_sandbox(live, Reason::Failed).await?;
                return Err(problem);
            }
        };
        let revision = seen.revision;
        match self.observe(live, seen, None, None).await {
            Ok(record) => {
                self.metrics.sandbox_created();
                if record.live {
                    self.watch(Arc::clone(live), revision);
                }
                shown(&record)
            }
            Err(problem) => {
                // Nobody learns its name. Its end is written by who watches it.
                self.abandon(live);
                self.watch(Arc::clone(live), revision);
                Err(problem)
            }
        }
    }

    /// Tells a host to destroy what nobody will ask for.
    fn abandon(self: &Arc<Self>, live: &Arc<Live>) {
        live.now().unwanted = true;
        let (agent, sandbox) = (self.agent(&live.host), live.of.clone());
        self.tasks.spawn(async move {
            let (id, order) = (sandbox.id, SandboxOrder::Destroy);
            // It ends at the latest when its time is over.
            if let Err(problem) = agent.ask(&TellSandbox { sandbox, order }).await {
                tracing::warn!(sandbox = %id, %problem, "a sandbox that is of no use was not destroyed");
            }
        });
    }
}
