//! What callers do with sandboxes that are there.

use std::sync::Arc;
use std::time::Duration;

use firelane_model::id::SnapshotId;
use firelane_store::db::{AuditEntry, DbError, Reading, Sandbox as Record};
use firelane_wire::bus::{Caller, ChangeSandbox, SandboxChange, SandboxOrder, TellSandbox};
use firelane_wire::problem::{Code, Problem};
use firelane_wire::sandbox::{Sandbox, SandboxPatch, SandboxState};

use super::create::{SLOW, after};
use super::live::Live;
use super::record::{About, Amend, audit, gone, shown};
use crate::records::{json, now, problem};
use crate::service::Coordinator;

/// Most sandboxes from one to the first that it descends from; what is further away is not looked at.
const MAX_LINEAGE: usize = 1000;

/// An order to a host, and what is written down when it is carried out.
struct Order {
    order: SandboxOrder,
    /// What it takes beside an ordinary call's time.
    longer: Duration,
    amend: Option<Amend>,
    audit: Option<AuditEntry>,
}

impl Order {
    fn plain(order: SandboxOrder) -> Order {
        Order {
            order,
            longer: Duration::ZERO,
            amend: None,
            audit: None,
        }
    }
}

impl Coordinator {
    /// Changes a sandbox. One that is gone can only be destroyed, and is already.
    pub(crate) async fn change_sandbox(
        self: Arc<Self>,
        call: ChangeSandbox,
    ) -> Result<Sandbox, Problem> {
        let ChangeSandbox { caller, id, change } = call;
        let record = self.sandbox_record(&caller.tenant, id).await?;
        let Some(live) = self.live_sandbox(&caller.tenant, id) else {
            return ended(&change, &self.sandbox_record(&caller.tenant, id).await?);
        };
        if !record.live {
            return ended(&change, &record);
        }
        let order = match &change {
            SandboxChange::Pause => Order::plain(SandboxOrder::Pause),
            SandboxChange::Resume => Order::plain(SandboxOrder::Resume),
            SandboxChange::Destroy => {
                live.now().unwanted = true;
                Order {
                    audit: Some(audit(&caller, "sandbox.destroy", &id, "{}".into())),
                    ..Order::plain(SandboxOrder::Destroy)
                }
            }
            SandboxChange::Patch(patch) => return self.patch(&live, &record, patch.clone()).await,
            SandboxChange::RollBack(snapshot) => {
                self.roll_back(&caller, &record, *snapshot).await?
            }
        };
        match self.tell(&live, order).await {
            Ok(record) if record.live || change == SandboxChange::Destroy => shown(&record),
            Ok(record) => Err(gone(&record)),
            Err(problem) => {
                if change == SandboxChange::Destroy {
                    // It was not carried out, as far as is known.
                    live.now().unwanted = false;
                }
                Err(problem)
            }
        }
    }

    /// Has a host carry out an order, and writes down what it says. The record as it is then.
    async fn tell(&self, live: &Live, order: Order) -> Result<Record, Problem> {
        let Order {
            order,
            longer,
            amend,
            audit,
        } = order;
        let sandbox = live.of.clone();
        let tell = TellSandbox { sandbox, order };
        match self.agent(&live.host).ask_for(&tell, longer).await {
            Ok(seen) => self.observe(live, seen, amend, audit).await,
            Err(problem) if problem.code == Code::NotFound => self.missing(live, problem).await,
            Err(problem) => Err(problem),
        }
    }

    /// A host says that something is not there: the sandbox, or only what was asked of it.
    async fn missing(&self, live: &Live, told: Problem) -> Result<Record, Problem> {
        match self.look_sandbox(live, 0, 0).await {
            Err(problem) if problem.code == Code::NotFound => {}
            _ => return Err(told),
        }
        if live.now().state == SandboxState::Creating {
            let cause = format!("the sandbox {} is still being made", live.of.id);
            return Err(Problem::new(Code::Conflict, cause));
        }
        self.lose(live).await?;
        self.sandbox_record(&live.of.tenant, live.of.id).await
    }

    /// Other terms: time and policy are the host's too, labels only the record's.
    async fn patch(
        &self,
        live: &Live,
        record: &Record,
        patch: SandboxPatch,
    ) -> Result<Sandbox, Problem> {
        patch.check()?;
        let SandboxPatch {
            ttl_s,
            idle,
            labels,
        } = patch;
        let mut about = About::of(record)?;
        let expires = ttl_s.map(|ttl_s| after(now().as_millisecond(), ttl_s));
        let amend: Amend = Box::new(move |record, update| {
            update.expires = expires.or(record.expires);
            update.labels = labels;
            if idle.is_some() {
                // What it came from may have changed meanwhile.
                about = About::of(record).unwrap_or(about);
                about.idle = idle;
                update.spec = Some(json(&about));
            }
        });
        let record = if ttl_s.is_some() || idle.is_some() {
            let order = Order {
                amend: Some(amend),
                ..Order::plain(SandboxOrder::Terms { ttl_s, idle })
            };
            self.tell(live, order).await?
        } else {
            self.amend(live, amend).await?
        };
        match record.live {
            true => shown(&record),
            false => Err(gone(&record)),
        }
    }

    /// Changes what is only on record.
    async fn amend(&self, live: &Live, amend: Amend) -> Result<Record, Problem> {
        let name = live.of.id.to_string();
        let amended = self.db.write(move |tx| {
            let Some(record) = tx.sandbox(&name)?.filter(|record| record.live) else {
                return tx.sandbox(&name);
            };
            let mut update = record.unchanged(now().as_millisecond());
            amend(&record, &mut update);
            tx.update_sandbox(&name, record.generation, &update)?;
            tx.sandbox(&name)
        });
        let amended = amended.await.map_err(|error| problem(&error))?;
        amended.ok_or_else(|| Problem::not_found("sandbox", live.of.id))
    }

    /// The order to go back to a snapshot, if it is one to go back to.
    async fn roll_back(
        &self,
        caller: &Caller,
        record: &Record,
        id: SnapshotId,
    ) -> Result<Order, Problem> {
        let snapshot = self.snapshot_record(&caller.tenant, id).await?;
        let wrong = |cause: String| Err(Problem::new(Code::Invalid, cause));
        if snapshot.host != record.host {
            return wrong(format!("the snapshot {id} is on another host"));
        }
        let began_from_it = About::of(record)?.snapshot == Some(id);
        let (sandbox, origin) = (record.id.clone(), snapshot.sandbox);
        let descends = self
            .db
            .read(move |rx| descends(rx, sandbox, &origin))
            .await
            .map_err(|error| problem(&error))?;
        if !descends && !began_from_it {
            return wrong(format!(
                "the snapshot {id} is neither of the sandbox {} nor of one that it comes from",
                record.id
            ));
        }
        let amend: Amend = Box::new(move |record, update| {
            if let Ok(mut about) = About::of(record) {
                about.base = Some(id);
                update.spec = Some(json(&about));
            }
        });
        let detail = json(&serde_json::json!({ "snapshot": id }));
        Ok(Order {
            order: SandboxOrder::RollBack { snapshot: id },
            longer: SLOW,
            amend: Some(amend),
            audit: Some(audit(caller, "sandbox.roll_back", &record.id, detail)),
        })
    }
}

/// The answer to a change of one that is gone.
fn ended(change: &SandboxChange, record: &Record) -> Result<Sandbox, Problem> {
    match change {
        SandboxChange::Destroy => shown(record),
        _ => Err(gone(record)),
    }
}

/// Whether a sandbox is the other one, or a fork of it, or of a fork of it.
fn descends(rx: &Reading<'_>, sandbox: String, origin: &str) -> Result<bool, DbError> {
    let mut next = Some(sandbox);
    for _ in 0..MAX_LINEAGE {
        let Some(id) = next else { return Ok(false) };
        if id == origin {
            return Ok(true);
        }
        next = rx.sandbox(&id)?.and_then(|record| record.parent);
    }
    Ok(false)
}
