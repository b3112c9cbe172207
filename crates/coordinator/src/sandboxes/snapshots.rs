//! Snapshots of sandboxes.

use std::sync::Arc;

use firelane_model::id::SnapshotId;
use firelane_store::db::Snapshot as Record;
use firelane_wire::bus::{
    Caller, DropSnapshot, GetSnapshot, ListSnapshots, RemoveSnapshot, SaveSandbox, SnapshotHere,
    TakeSnapshot,
};
use firelane_wire::page::Page;
use firelane_wire::problem::Problem;
use firelane_wire::snapshot::Snapshot;
use uuid::Uuid;

use super::create::SLOW;
use super::find::page_of;
use super::live::Live;
use super::record::{About, audit, gone};
use crate::records::{json, now, problem, time, unreadable};
use crate::runs::going_down;
use crate::service::Coordinator;

impl Coordinator {
    /// Takes a snapshot. Its record is made when the host has it: files without one are of nobody.
    pub(crate) async fn take_snapshot(
        self: Arc<Self>,
        call: TakeSnapshot,
    ) -> Result<Snapshot, Problem> {
        let TakeSnapshot { caller, sandbox } = call;
        if self.stop.is_cancelled() {
            return Err(going_down());
        }
        let record = self.sandbox_record(&caller.tenant, sandbox).await?;
        let live = self.live_sandbox(&caller.tenant, sandbox);
        let Some(live) = live.filter(|_| record.live) else {
            return Err(gone(&record));
        };
        let id = SnapshotId::from_bits(Uuid::now_v7().as_u128());
        let parent = About::of(&record)?.base;
        self.state().sandboxes.saving.insert(id);
        let saved = self.save(&caller, &live, id, parent).await;
        self.state().sandboxes.saving.remove(&id);
        saved.and_then(|record| shown(&record))
    }

    async fn save(
        self: &Arc<Self>,
        caller: &Caller,
        live: &Live,
        id: SnapshotId,
        parent: Option<SnapshotId>,
    ) -> Result<Record, Problem> {
        let sandbox = live.of.clone();
        let snapshot = id;
        let save = SaveSandbox { sandbox, snapshot };
        let agent = self.agent(&live.host);
        let here: SnapshotHere = agent.ask_for(&save, SLOW).await?;
        let record = Record {
            id: id.to_string(),
            tenant: live.of.tenant.clone(),
            sandbox: live.of.id.to_string(),
            parent: parent.map(|parent| parent.to_string()),
            created: now().as_millisecond(),
            size_bytes: here.size_bytes,
            template: here.template,
            host: live.host.clone(),
        };
        let detail = json(&serde_json::json!({ "sandbox": live.of.id }));
        let (new, row) = (
            record.clone(),
            audit(caller, "snapshot.create", &id, detail),
        );
        let inserted = self.db.write(move |tx| {
            tx.insert_snapshot(&new)?;
            tx.append_audit(&row)
        });
        if let Err(error) = inserted.await {
            // What nobody knows of is removed now, or when its host is compared with the records.
            if let Err(problem) = agent.ask(&DropSnapshot { id }).await {
                tracing::warn!(snapshot = %id, %problem, "a snapshot without a record stays for now");
            }
            return Err(problem(&error));
        }
        Ok(record)
    }

    /// Removes a snapshot: its files, and then its record. If one fails, it can be asked for again.
    pub(crate) async fn remove_snapshot(
        self: Arc<Self>,
        call: RemoveSnapshot,
    ) -> Result<(), Problem> {
        let RemoveSnapshot { caller, id } = call;
        let record = self.snapshot_record(&caller.tenant, id).await?;
        self.agent(&record.host).ask(&DropSnapshot { id }).await?;
        let row = audit(&caller, "snapshot.remove", &id, "{}".into());
        let removed = self.db.write(move |tx| {
            if tx.remove_snapshot(&record.id)? {
                tx.append_audit(&row)?;
            }
            Ok(())
        });
        removed.await.map_err(|error| problem(&error))
    }

    /// One snapshot.
    pub(crate) async fn get_snapshot(
        self: Arc<Self>,
        call: GetSnapshot,
    ) -> Result<Snapshot, Problem> {
        shown(&self.snapshot_record(&call.tenant, call.id).await?)
    }

    /// A tenant's snapshots, newest first.
    pub(crate) async fn list_snapshots(
        self: Arc<Self>,
        call: ListSnapshots,
    ) -> Result<Page<Snapshot>, Problem> {
        let ListSnapshots {
            tenant,
            sandbox,
            page,
        } = call;
        let page = page_of(&page)?;
        let sandbox = sandbox.map(|sandbox| sandbox.to_string());
        let found = self
            .db
            .read(move |rx| rx.snapshots(&tenant, sandbox.as_deref(), page));
        let found = found.await.map_err(|error| problem(&error))?;
        let items: Result<_, _> = found.items.iter().map(shown).collect();
        Ok(Page {
            items: items?,
            next_cursor: found.next.map(|next| next.to_string()),
        })
    }

    /// The record of a snapshot, and whose it is.
    pub(super) async fn snapshot_record(
        &self,
        tenant: &str,
        id: SnapshotId,
    ) -> Result<Record, Problem> {
        let name = id.to_string();
        let found = self.db.read(move |rx| rx.snapshot(&name)).await;
        let found = found.map_err(|error| problem(&error))?;
        let own = found.filter(|record| record.tenant == tenant);
        own.ok_or_else(|| Problem::not_found("snapshot", id))
    }
}

/// A record as callers see it.
fn shown(record: &Record) -> Result<Snapshot, Problem> {
    let damaged = || unreadable(&record.id);
    let parent = record.parent.as_deref().map(str::parse).transpose();
    Ok(Snapshot {
        id: record.id.parse().map_err(|_| damaged())?,
        sandbox: record.sandbox.parse().map_err(|_| damaged())?,
        parent: parent.map_err(|_| damaged())?,
        template: record.template.clone(),
        created_at: time(record.created).ok_or_else(damaged)?,
        size_bytes: record.size_bytes,
    })
}
