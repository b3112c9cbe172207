//! Sandboxes on record and in memory, with a host that only says that it has them.

mod answers;
mod forks;
mod host;
mod life;
mod restart;
mod snapshots;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use firelane_model::id::{KeyId, SandboxId};
use firelane_store::bus::{LocalBus, Server, SharedBus};
use firelane_store::db::{AuditVerdict, Db};
use firelane_traces::Sink;
use firelane_wire::bus::{
    Caller, ChangeSandbox, CreateSandbox, FindSandbox, GetSandbox, ListSandboxes, SandboxChange,
};
use firelane_wire::page::PageQuery;
use firelane_wire::problem::Problem;
use firelane_wire::sandbox::{Sandbox, SandboxState};
use tempfile::TempDir;

use crate::service::{Config, Coordinator};
use host::Host;

/// A coordinator that serves, and its host.
struct Service {
    coordinator: Arc<Coordinator>,
    host: Host,
    bus: SharedBus,
    db: Db,
    serving: Server,
    files: TempDir,
}

impl Service {
    async fn start() -> Service {
        Service::on(tempfile::tempdir().unwrap()).await
    }

    /// On a folder that may have a database.
    async fn on(files: TempDir) -> Service {
        let bus: SharedBus = Arc::new(LocalBus::new());
        let host = Host::start(&bus, "h1").await;
        let service = Service::without_host(files, bus, host).await;
        service.host.report(&service.bus).await;
        service
    }

    /// One whose host has not reported.
    async fn without_host(files: TempDir, bus: SharedBus, host: Host) -> Service {
        let db = open(files.path()).await;
        let config = Config {
            queue: 10,
            queue_per_tenant: 10,
            traces: Sink::off(),
        };
        let coordinator = Coordinator::new(config, Arc::clone(&bus), db.clone()).await;
        let coordinator = coordinator.unwrap();
        let serving = coordinator.serve().await.unwrap();
        Service {
            coordinator,
            host,
            bus,
            db,
            serving,
            files,
        }
    }

    /// Ends it as SIGKILL does, as far as the database can tell; its files.
    async fn kill(self) -> TempDir {
        drop(self.serving);
        self.coordinator.stop.cancel();
        self.bus.close().await;
        self.db.close().await;
        self.coordinator.settle().await;
        self.files
    }

    async fn create(&self, caller: &Caller, request: &str) -> Result<Sandbox, Problem> {
        let call = CreateSandbox {
            caller: caller.clone(),
            request: serde_json::from_str(request).unwrap(),
        };
        Arc::clone(&self.coordinator).create_sandbox(call).await
    }

    async fn change(
        &self,
        caller: &Caller,
        id: SandboxId,
        change: SandboxChange,
    ) -> Result<Sandbox, Problem> {
        let caller = caller.clone();
        let call = ChangeSandbox { caller, id, change };
        Arc::clone(&self.coordinator).change_sandbox(call).await
    }

    async fn get(&self, tenant: &str, id: SandboxId) -> Result<Sandbox, Problem> {
        let tenant = tenant.into();
        let call = GetSandbox { tenant, id };
        Arc::clone(&self.coordinator).get_sandbox(call).await
    }

    async fn find(&self, tenant: &str, id: SandboxId) -> Result<String, Problem> {
        let tenant = tenant.into();
        let call = FindSandbox { tenant, id };
        Arc::clone(&self.coordinator).find_sandbox(call).await
    }

    async fn list(&self, tenant: &str, labels: &[(&str, &str)], gone: bool) -> Vec<SandboxId> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let mut ids = Vec::new();
        let mut cursor = None;
        loop {
            let call = ListSandboxes {
                tenant: tenant.into(),
                labels: labels.iter().map(owned).collect(),
                gone,
                page: PageQuery {
                    limit: Some(2),
                    cursor,
                },
            };
            let page = Arc::clone(&self.coordinator).list_sandboxes(call).await;
            let page = page.unwrap();
            ids.extend(page.items.iter().map(|sandbox| sandbox.id));
            cursor = page.next_cursor;
            if cursor.is_none() {
                return ids;
            }
        }
    }

    /// Waits until the record has it in a state.
    async fn wait_for(&self, tenant: &str, id: SandboxId, state: SandboxState) -> Sandbox {
        eventually(async || {
            let sandbox = self.get(tenant, id).await.unwrap();
            (sandbox.state == state).then_some(sandbox)
        })
        .await
    }

    /// Rows of the audit.
    async fn audited(&self) -> u64 {
        let verdict = self.db.audit_verify(None).await.unwrap();
        match verdict {
            AuditVerdict::Whole(head) => head.seq,
            verdict => panic!("{verdict:?}"),
        }
    }
}

async fn open(folder: &Path) -> Db {
    Db::open(&folder.join("state.db")).await.unwrap()
}

/// Looks again and again, until there is something.
async fn eventually<T>(mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::task::yield_now().await;
        }
    };
    let found = tokio::time::timeout(Duration::from_secs(20), looking).await;
    found.expect("it comes to this")
}

/// Somebody without limits.
fn of(tenant: &str) -> Caller {
    Caller {
        tenant: tenant.into(),
        key: None,
        weight: 1,
        concurrency: None,
        cpu_us_per_day: None,
    }
}

/// Somebody who may have so much at once.
fn bounded(tenant: &str, concurrency: u32) -> Caller {
    Caller {
        key: Some(KeyId::from_bits(7)),
        concurrency: Some(concurrency),
        ..of(tenant)
    }
}
