//! `GET /v1/runs/{id}`: a run as it is now.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Json;
use firelane_model::id::RunId;
use firelane_wire::bus::GetRun;
use firelane_wire::key::Scope;
use firelane_wire::problem::Problem;
use firelane_wire::run::{Run, RunState};

use super::outcome;
use crate::Gateway;
use crate::auth::Who;
use crate::failure::Answer;
use crate::path::Id;

/// A run as it is now, with its outcome if it has one
#[utoipa::path(get, path = "/v1/runs/{id}", operation_id = "run_get", tag = "runs",
    params(("id" = String, Path, pattern = "^run-[0-9a-f]{32}$", description = "The run")),
    responses((status = 200, description = "The run", body = Run),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json")))]
pub(crate) async fn get(
    State(gateway): State<Arc<Gateway>>,
    who: Who,
    Id(id): Id<RunId>,
) -> Answer<Json<Run>> {
    who.require(Scope::Run)?;
    let tenant = who.caller.tenant;
    let get = GetRun {
        tenant: tenant.clone(),
        id,
    };
    let run = gateway.coordinator.ask(&get).await?;
    if run.state == RunState::Done {
        return Ok(Json(outcome::wait(&gateway, &tenant, id).await?));
    }
    Ok(Json(run))
}
