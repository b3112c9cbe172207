//! What the record of a sandbox holds, and how a host's word becomes one.

use firelane_model::id::{SandboxId, SnapshotId};
use firelane_model::sandbox::Reason;
use firelane_store::db::{
    AuditEntry, DbError, Labels, Sandbox as Record, SandboxUpdate, Usage, Writing,
};
use firelane_wire::bus::{Caller, SandboxSeen};
use firelane_wire::network::NetworkSeen;
use firelane_wire::problem::{Code, Problem};
use firelane_wire::sandbox::{Idle, Sandbox, SandboxState};
use serde::de::value::{Error as Unnamed, StrDeserializer};
use serde::de::{DeserializeOwned, IntoDeserializer};
use serde::{Deserialize, Serialize};

use super::live::Live;
use crate::records::{self, actor, json, problem, time, today, unreadable};
use crate::service::Coordinator;

/// What a sandbox is, as its record keeps it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct About {
    pub(super) template: String,
    /// The snapshot that it began from.
    pub(super) snapshot: Option<SnapshotId>,
    pub(super) idle: Option<Idle>,
    /// The snapshot that it began from, or was last put back to: its own snapshots come from this one.
    pub(super) base: Option<SnapshotId>,
    /// What happened in its network, as its host last told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) network: Option<NetworkSeen>,
}

impl About {
    pub(super) fn of(record: &Record) -> Result<About, Problem> {
        serde_json::from_str(&record.spec).map_err(|_| unreadable(&record.id))
    }

    /// With what its host tells of its network, if that is news.
    fn hear(record: &Record, told: Option<&NetworkSeen>) -> Option<About> {
        let told = told?;
        let about = About::of(record).ok()?;
        let known = about.network.as_ref();
        let news = known.is_none_or(|known| told.total() > known.total());
        news.then(|| About {
            network: Some(told.clone()),
            ..about
        })
    }
}

/// The record of a sandbox that is about to be made.
pub(super) fn new_record(
    live: &Live,
    about: &About,
    parent: Option<SandboxId>,
    labels: Labels,
    (created, expires): (i64, Option<i64>),
) -> Record {
    Record {
        id: live.of.id.to_string(),
        tenant: live.of.tenant.clone(),
        key_id: live.key.map(|key| key.to_string()),
        host: live.host.clone(),
        parent: parent.map(|parent| parent.to_string()),
        state: SandboxState::Creating.name().into(),
        live: true,
        reason: None,
        generation: 1,
        revision: 0,
        cpu_us: 0,
        spec: json(about),
        labels,
        created,
        expires,
        updated: created,
    }
}

/// A row of the audit.
pub(super) fn audit(
    caller: &Caller,
    action: &str,
    subject: &impl ToString,
    detail: String,
) -> AuditEntry {
    AuditEntry {
        at: records::now().as_millisecond(),
        actor: actor(caller),
        action: action.into(),
        subject: subject.to_string(),
        detail,
    }
}

/// A record as callers see it.
pub(super) fn shown(record: &Record) -> Result<Sandbox, Problem> {
    let damaged = || unreadable(&record.id);
    let about = About::of(record)?;
    let parent = record.parent.as_deref().map(str::parse).transpose();
    Ok(Sandbox {
        id: record.id.parse().map_err(|_| damaged())?,
        state: state(record)?,
        reason: reason(record),
        template: about.template,
        snapshot: about.snapshot,
        parent: parent.map_err(|_| damaged())?,
        host: Some(record.host.clone()),
        created_at: time(record.created).ok_or_else(damaged)?,
        expires_at: record.expires.and_then(time).ok_or_else(damaged)?,
        idle: about.idle,
        network: about.network,
        labels: record.labels.clone(),
    })
}

/// The state that a record names.
pub(super) fn state(record: &Record) -> Result<SandboxState, Problem> {
    named(&record.state).ok_or_else(|| unreadable(&record.id))
}

/// The reason that a record names.
pub(super) fn reason(record: &Record) -> Option<Reason> {
    record.reason.as_deref().and_then(named)
}

/// What is so called on the wire.
fn named<T: DeserializeOwned>(name: &str) -> Option<T> {
    let name: StrDeserializer<'_, Unnamed> = name.into_deserializer();
    T::deserialize(name).ok()
}

/// The name on the wire.
pub(crate) const fn reason_name(reason: Reason) -> &'static str {
    match reason {
        Reason::Asked => "asked",
        Reason::TtlOver => "ttl_over",
        Reason::Idle => "idle",
        Reason::VmmDied => "vmm_died",
        Reason::HostRestarted => "host_restarted",
        Reason::Failed => "failed",
    }
}

/// Why a sandbox that is gone cannot be used.
pub(super) fn gone(record: &Record) -> Problem {
    let id = &record.id;
    let cause = match reason(record) {
        Some(reason) => format!("the sandbox {id} is gone: {reason}"),
        None => format!("the sandbox {id} is gone"),
    };
    Problem::new(Code::NotFound, cause).with_remedy("make another one")
}

/// What else a host's word changes: of the record, and in the audit.
pub(super) type Amend = Box<dyn FnOnce(&Record, &mut SandboxUpdate) + Send>;

/// A record after a host's word of it.
struct Noted {
    record: Record,
    /// Microseconds of processor time that are new.
    cpu_us: u64,
}

/// Writes down what a host told, as far as it is news; nothing of a sandbox that is gone.
fn note(
    tx: &Writing<'_>,
    id: &str,
    seen: &SandboxSeen,
    amend: Option<Amend>,
    audit: Option<&AuditEntry>,
) -> Result<Option<Noted>, DbError> {
    let Some(mut record) = tx.sandbox(id)? else {
        return Ok(None);
    };
    // It was done, whoever wrote down first what came of it.
    audit.map_or(Ok(()), |row| tx.append_audit(row).map(drop))?;
    let mut cpu_us = seen.cpu_us.saturating_sub(record.cpu_us);
    let newer = seen.revision > record.revision;
    let about = About::hear(&record, seen.network.as_ref());
    if !record.live || (!newer && cpu_us == 0 && about.is_none() && amend.is_none()) {
        cpu_us = 0;
        return Ok(Some(Noted { record, cpu_us }));
    }
    let mut update = record.unchanged(records::now().as_millisecond());
    if newer {
        update.revision = seen.revision;
        update.state = seen.state.name().into();
        update.live = seen.state != SandboxState::Destroyed;
        update.reason = seen.reason.map(|reason| reason_name(reason).into());
    }
    update.cpu_us += cpu_us;
    if let Some(about) = about {
        let spec = json(&about);
        record.spec.clone_from(&spec);
        update.spec = Some(spec);
    }
    if let Some(amend) = amend {
        amend(&record, &mut update);
    }
    tx.update_sandbox(id, record.generation, &update)?;
    if cpu_us > 0 {
        let key = record.key_id.as_deref().unwrap_or_default();
        let usage = Usage {
            cpu_us,
            ..Usage::default()
        };
        tx.add_usage(&record.tenant, key, today(), &usage)?;
    }
    // As it is written, in the same transaction.
    Ok(tx.sandbox(id)?.map(|record| Noted { record, cpu_us }))
}

impl Coordinator {
    /// Writes down what a host told of a sandbox, and counts what it used. The record as it is then.
    pub(super) async fn observe(
        &self,
        live: &Live,
        seen: SandboxSeen,
        amend: Option<Amend>,
        audit: Option<AuditEntry>,
    ) -> Result<Record, Problem> {
        let id = live.of.id;
        let name = id.to_string();
        let noted = self
            .db
            .write(move |tx| note(tx, &name, &seen, amend, audit.as_ref()));
        let noted = noted.await.map_err(|error| problem(&error))?;
        let Noted { record, cpu_us } = noted.ok_or_else(|| Problem::not_found("sandbox", id))?;
        if let Some(key) = live.key {
            self.state().keys.charge(key, today(), cpu_us);
        }
        self.follow_record(live, &record);
        Ok(record)
    }

    /// Writes down that a sandbox is gone, without a host's word. One that was gone stays as it is.
    pub(super) async fn end_sandbox(&self, live: &Live, reason: Reason) -> Result<Record, Problem> {
        let id = live.of.id;
        let name = id.to_string();
        let ended = self.db.write(move |tx| {
            let Some(record) = tx.sandbox(&name)? else {
                return Ok(None);
            };
            if !record.live {
                return Ok(Some(record));
            }
            let mut update = record.unchanged(records::now().as_millisecond());
            update.state = SandboxState::Destroyed.name().into();
            update.live = false;
            update.reason = Some(reason_name(reason).into());
            tx.update_sandbox(&name, record.generation, &update)?;
            tx.sandbox(&name)
        });
        let record = ended.await.map_err(|error| problem(&error))?;
        let record = record.ok_or_else(|| Problem::not_found("sandbox", id))?;
        self.follow_record(live, &record);
        Ok(record)
    }

    /// Has in memory what the record says.
    fn follow_record(&self, live: &Live, record: &Record) {
        if let Ok(state) = state(record) {
            live.now().state = state;
        }
        if !record.live && self.let_go(live, reason(record)) {
            self.tell_sandbox(live.of.id, record);
        }
    }
}
