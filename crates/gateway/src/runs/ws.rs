//! `GET /v1/runs/{id}/ws`: a run's events out, input in, over one WebSocket.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use firelane_model::id::RunId;
use firelane_wire::bus::GetRun;
use firelane_wire::key::Scope;
use firelane_wire::problem::Problem;

use crate::Gateway;
use crate::auth::Who;
use crate::failure::Answer;
use crate::follow::ws;
use crate::path::Id;

/// A run's events and its input over a WebSocket
///
/// Standard input is open if the run is `interactive`.
#[utoipa::path(get, path = "/v1/runs/{id}/ws", operation_id = "run_ws", tag = "runs",
    params(("id" = String, Path, pattern = "^run-[0-9a-f]{32}$", description = "The run")),
    responses((status = 101, description = "The WebSocket is open"),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json")))]
pub(crate) async fn get(
    State(gateway): State<Arc<Gateway>>,
    who: Who,
    Id(id): Id<RunId>,
    upgrade: ws::Upgrade,
) -> Answer<Response> {
    who.require(Scope::Run)?;
    let tenant = who.caller.tenant;
    let get = GetRun {
        tenant: tenant.clone(),
        id,
    };
    gateway.coordinator.ask(&get).await?;
    let log = gateway.log_of_run(&tenant, id);
    ws::upgrade(log, upgrade)
}
