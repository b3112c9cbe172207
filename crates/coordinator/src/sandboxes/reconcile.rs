//! Compares the records of snapshots with the files of a host that is there again: a service that
//! ended between the two left one without the other.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use firelane_model::id::SnapshotId;
use firelane_store::db::{DbError, MAX_PAGE, PageOf};
use firelane_wire::bus::{DropSnapshot, HaveSnapshots};
use firelane_wire::problem::Problem;
use tokio::time::{Instant, sleep};

use crate::records::problem;
use crate::service::Coordinator;

/// Pause before a host that did not answer is asked again.
const RETRY: Duration = Duration::from_secs(1);

impl Coordinator {
    /// Does it in the background, as long as the host is there.
    pub(crate) fn reconcile(self: &Arc<Self>, host: String) {
        let this = Arc::clone(self);
        self.tasks.spawn(async move {
            while !this.stop.is_cancelled() && this.state().hosts.is_there(&host, Instant::now()) {
                match this.reconcile_once(&host).await {
                    Ok(()) => return,
                    Err(problem) => {
                        tracing::warn!(host, %problem, "a host's snapshots were not compared");
                    }
                }
                tokio::select! {
                    () = sleep(RETRY) => {}
                    () = this.stop.cancelled() => {}
                }
            }
        });
    }

    async fn reconcile_once(&self, host: &str) -> Result<(), Problem> {
        // Read before the files: what is on record by then has been there.
        let recorded = self.recorded_on(host).await;
        let recorded = recorded.map_err(|error| problem(&error))?;
        let agent = self.agent(host);
        let here = agent.ask(&HaveSnapshots {}).await?;
        let here: HashSet<SnapshotId> = here.into_iter().map(|snapshot| snapshot.id).collect();
        for name in recorded {
            let Ok(id) = name.parse::<SnapshotId>() else {
                tracing::error!(snapshot = name, "the record of a snapshot cannot be read");
                continue;
            };
            if !here.contains(&id) {
                let removed = self.db.write(move |tx| tx.remove_snapshot(&name)).await;
                removed.map_err(|error| problem(&error))?;
                tracing::warn!(snapshot = %id, host, "the files of a snapshot are gone");
            }
        }
        for id in here {
            // Asked in this order: its record is written before it is not being saved any more.
            let saving = self.state().sandboxes.saving.contains(&id);
            let name = id.to_string();
            let record = self.db.read(move |rx| rx.snapshot(&name)).await;
            if !saving && record.map_err(|error| problem(&error))?.is_none() {
                agent.ask(&DropSnapshot { id }).await?;
                tracing::info!(snapshot = %id, host, "files of a snapshot without a record were removed");
            }
        }
        Ok(())
    }

    async fn recorded_on(&self, host: &str) -> Result<Vec<String>, DbError> {
        let mut names = Vec::new();
        let mut page = PageOf::first(MAX_PAGE);
        loop {
            let host = host.to_owned();
            let found = self
                .db
                .read(move |rx| rx.snapshots_of_host(&host, page))
                .await?;
            names.extend(found.items.into_iter().map(|snapshot| snapshot.id));
            page.after = found.next;
            if found.next.is_none() {
                return Ok(names);
            }
        }
    }
}
