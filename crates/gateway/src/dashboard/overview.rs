//! `/`: hosts, pools, the queue, recent runs; and `/overview`, the parts of it that change.

use std::sync::Arc;

use axum::extract::State;
use firelane_wire::bus::{ListHosts, ListRuns, LookQueue};
use firelane_wire::host::Host;
use firelane_wire::key::Scope;
use firelane_wire::page::PageQuery;
use firelane_wire::problem::Problem;
use firelane_wire::queue::Queue;
use firelane_wire::run::Run;
use maud::PreEscaped;

use super::ended::Done;
use super::html::{self, Html};
use super::viewer::{Refused, Viewer};
use crate::Gateway;
use crate::auth::Who;

/// Runs that are listed.
const RECENT: u32 = 20;

/// What the page shows.
pub(super) struct Overview {
    pub(super) hosts: Vec<Host>,
    pub(super) queue: Queue,
    /// None if the key may not see runs.
    pub(super) runs: Option<Vec<Recent>>,
}

/// A run of the list.
pub(super) struct Recent {
    pub(super) run: Run,
    /// How it ended, if its program did.
    pub(super) done: Option<Arc<Done>>,
}

/// The whole page.
pub(super) async fn page(
    State(gateway): State<Arc<Gateway>>,
    Viewer(who): Viewer,
) -> Result<Html, Refused> {
    let overview = load(&gateway, &who).await?;
    Ok(html::overview::page(&overview, &who))
}

/// The parts of it that change, for the script.
pub(super) async fn parts(
    State(gateway): State<Arc<Gateway>>,
    Viewer(who): Viewer,
) -> Result<Html, Refused> {
    let overview = load(&gateway, &who).await?;
    let parts = html::overview::parts(&overview).map(|part| part.0);
    Ok(Html(PreEscaped(parts.concat())))
}

async fn load(gateway: &Gateway, who: &Who) -> Result<Overview, Problem> {
    let tenant = &who.caller.tenant;
    let hosts = gateway.coordinator.ask(&ListHosts {}).await?;
    let look = LookQueue {
        tenant: tenant.clone(),
    };
    let queue = gateway.coordinator.ask(&look).await?;
    let runs = match who.require(Scope::Run) {
        Ok(()) => Some(recent(gateway, tenant).await?),
        Err(_) => None,
    };
    Ok(Overview { hosts, queue, runs })
}

async fn recent(gateway: &Gateway, tenant: &str) -> Result<Vec<Recent>, Problem> {
    let list = ListRuns {
        tenant: tenant.into(),
        state: None,
        page: PageQuery {
            limit: Some(RECENT),
            cursor: None,
        },
    };
    let page = gateway.coordinator.ask(&list).await?;
    let mut runs = Vec::new();
    for run in page.items {
        // One log that cannot be read does not keep the others from being seen.
        let done = gateway.ends.of(gateway, tenant, &run).await.unwrap_or(None);
        runs.push(Recent { run, done });
    }
    Ok(runs)
}
