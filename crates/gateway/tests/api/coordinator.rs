//! A coordinator that knows one sandbox, one snapshot and four keys.

use std::collections::BTreeMap;
use std::sync::Arc;

use firelane_model::id::{KeyId, SandboxId, SnapshotId};
use firelane_store::bus::{Bus, BusError, Server};
use firelane_wire::bus::{
    ChangeSandbox, CreateSandbox, FindKey, FindSandbox, ForkSandbox, GetSandbox, GetSnapshot,
    KeyFound, ListSandboxes, ListSnapshots, RemoveSnapshot, SandboxChange, TakeSnapshot,
};
use firelane_wire::key::{Key, KeyLimits, Scope};
use firelane_wire::page::Page;
use firelane_wire::problem::{Code, Problem};
use firelane_wire::sandbox::{Fork, Forks, Sandbox, SandboxState};
use firelane_wire::snapshot::Snapshot;

use crate::answers;
use crate::fake::{As, Asked, SECRET};

/// The tenant that everything belongs to.
const OWNER: &str = "ours";
/// The host that has the sandbox.
pub(crate) const HOST: &str = "fake";

pub(crate) fn sandbox_id() -> SandboxId {
    SandboxId::from_bits(7)
}

pub(crate) fn snapshot_id() -> SnapshotId {
    SnapshotId::from_bits(8)
}

fn sandbox(state: SandboxState) -> Sandbox {
    Sandbox {
        id: sandbox_id(),
        state,
        reason: None,
        template: "default".into(),
        snapshot: None,
        parent: None,
        host: Some(HOST.into()),
        created_at: "2026-01-01T00:00:00Z".into(),
        expires_at: "2026-01-01T01:00:00Z".into(),
        idle: None,
        network: None,
        labels: BTreeMap::new(),
    }
}

fn snapshot() -> Snapshot {
    Snapshot {
        id: snapshot_id(),
        sandbox: sandbox_id(),
        parent: None,
        template: "default".into(),
        created_at: "2026-01-01T00:00:00Z".into(),
        size_bytes: 4096,
    }
}

fn ours(tenant: &str, id: SandboxId) -> Result<(), Problem> {
    if tenant == OWNER && id == sandbox_id() {
        return Ok(());
    }
    Err(Problem::not_found("sandbox", id))
}

fn ours_too(tenant: &str, id: SnapshotId) -> Result<(), Problem> {
    if tenant == OWNER && id == snapshot_id() {
        return Ok(());
    }
    Err(Problem::not_found("snapshot", id))
}

fn key(id: KeyId) -> Option<KeyFound> {
    let who = As::ALL.into_iter().find(|who| *who as u128 == id.bits())?;
    let (tenant, scope) = match who {
        As::Owner => (OWNER, Scope::Sandbox),
        As::Stranger => ("theirs", Scope::Sandbox),
        As::Runner => (OWNER, Scope::Run),
        As::Admin => (OWNER, Scope::Admin),
    };
    Some(KeyFound {
        key: Key {
            id,
            name: tenant.into(),
            tenant: tenant.into(),
            scopes: [scope].into(),
            weight: 1,
            limits: KeyLimits::default(),
            created_at: "2026-01-01T00:00:00Z".into(),
            revoked_at: None,
        },
        secret_hash: *blake3::hash(SECRET.as_bytes()).as_bytes(),
    })
}

pub(crate) async fn serve(bus: Arc<dyn Bus>, asked: Asked) -> Server {
    let mut server = Server::new(bus, "coordinator");
    register(&mut server, asked).await.expect("the Bus is open");
    server
}

async fn register(server: &mut Server, asked: Asked) -> Result<(), BusError> {
    let notes = asked.clone();
    server
        .on(move |call: FindKey| {
            notes.note(&call);
            async move { Ok(key(call.id)) }
        })
        .await?;
    answers::register(server, asked.clone()).await?;
    let notes = asked.clone();
    server
        .on(move |call: CreateSandbox| {
            notes.note(&call);
            async move {
                let refused = |code| Err(Problem::new(code, "the template says so"));
                match call.request.template.as_str() {
                    "none" => refused(Code::NotFound),
                    "full" => refused(Code::Unavailable),
                    "busy" => refused(Code::Conflict),
                    "often" => refused(Code::RateLimited),
                    _ => Ok(sandbox(SandboxState::Running)),
                }
            }
        })
        .await?;
    server
        .on(|call: GetSandbox| async move {
            ours(&call.tenant, call.id)?;
            Ok(sandbox(SandboxState::Running))
        })
        .await?;
    server
        .on(|call: FindSandbox| async move {
            ours(&call.tenant, call.id)?;
            Ok(HOST.to_owned())
        })
        .await?;
    let notes = asked.clone();
    server
        .on(move |call: ListSandboxes| {
            notes.note(&call);
            async move {
                let mine = call.tenant == OWNER;
                Ok(Page {
                    items: mine
                        .then(|| sandbox(SandboxState::Paused))
                        .into_iter()
                        .collect(),
                    next_cursor: Some("more".into()),
                })
            }
        })
        .await?;
    let notes = asked.clone();
    server
        .on(move |call: ChangeSandbox| {
            notes.note(&call);
            async move {
                ours(&call.caller.tenant, call.id)?;
                Ok(sandbox(match call.change {
                    SandboxChange::Pause => SandboxState::Paused,
                    SandboxChange::Destroy => SandboxState::Destroyed,
                    _ => SandboxState::Running,
                }))
            }
        })
        .await?;
    let notes = asked.clone();
    server
        .on(move |call: ForkSandbox| {
            notes.note(&call);
            async move {
                ours(&call.caller.tenant, call.id)?;
                let full = Problem::new(Code::Unavailable, "no host has room");
                let first = Fork {
                    sandbox: Some(sandbox(SandboxState::Running)),
                    problem: None,
                };
                let others = (1..call.count).map(|_| Fork {
                    sandbox: None,
                    problem: Some(full.clone()),
                });
                Ok(Forks {
                    forks: [first].into_iter().chain(others).collect(),
                })
            }
        })
        .await?;
    snapshots(server, asked).await
}

async fn snapshots(server: &mut Server, asked: Asked) -> Result<(), BusError> {
    server
        .on(|call: TakeSnapshot| async move {
            ours(&call.caller.tenant, call.sandbox)?;
            Ok(snapshot())
        })
        .await?;
    server
        .on(|call: GetSnapshot| async move {
            ours_too(&call.tenant, call.id)?;
            Ok(snapshot())
        })
        .await?;
    let notes = asked.clone();
    server
        .on(move |call: ListSnapshots| {
            notes.note(&call);
            async move {
                let mine = call.tenant == OWNER;
                Ok(Page {
                    items: mine.then(snapshot).into_iter().collect(),
                    next_cursor: None,
                })
            }
        })
        .await?;
    server
        .on(move |call: RemoveSnapshot| {
            asked.note(&call);
            async move { ours_too(&call.caller.tenant, call.id) }
        })
        .await
}
