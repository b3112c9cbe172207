//! `/runs/{id}`: what is on record of one run.

use std::sync::Arc;

use axum::extract::State;
use firelane_model::id::RunId;
use firelane_wire::bus::GetRun;
use firelane_wire::key::Scope;
use firelane_wire::run::Run;

use super::ended::{self, Told};
use super::html::{self, Html};
use super::viewer::{Refused, Viewer};
use crate::Gateway;
use crate::failure::Failure;
use crate::path::Id;

/// Bytes of what a program wrote that its page shows; the API has the rest.
const SHOWN_BYTES: usize = 256 << 10;
/// Bytes of a log that are read to find its end: the most that a run may write and give back.
const MOST_BYTES: usize = 64 << 20;

/// A run, and what its log tells.
pub(super) struct Record {
    pub(super) run: Run,
    pub(super) told: Told,
}

pub(super) async fn page(
    State(gateway): State<Arc<Gateway>>,
    Viewer(who): Viewer,
    id: Result<Id<RunId>, Failure>,
) -> Result<Html, Refused> {
    who.require(Scope::Run)?;
    let Id(id) = id?;
    let tenant = who.caller.tenant.clone();
    // The log before the run: what is over afterwards may have written more, never less.
    let told = ended::read(&gateway, &tenant, id, SHOWN_BYTES, MOST_BYTES).await?;
    let run = gateway.coordinator.ask(&GetRun { tenant, id }).await?;
    Ok(html::run::page(&Record { run, told }, &who))
}
