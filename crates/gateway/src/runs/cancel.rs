//! `DELETE /v1/runs/{id}`: ends a run.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Json;
use firelane_model::id::RunId;
use firelane_wire::bus::CancelRun;
use firelane_wire::key::Scope;
use firelane_wire::problem::Problem;
use firelane_wire::run::Run;

use crate::Gateway;
use crate::auth::Who;
use crate::failure::Answer;
use crate::path::Id;

/// Ends a run, wherever it is
///
/// One that waits is cancelled at once, one that runs soon; one that is over stays as it is.
#[utoipa::path(delete, path = "/v1/runs/{id}", operation_id = "run_cancel", tag = "runs",
    params(("id" = String, Path, pattern = "^run-[0-9a-f]{32}$", description = "The run")),
    responses((status = 200, description = "It is over", body = Run),
              (status = 202, description = "It soon is", body = Run),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json")))]
pub(crate) async fn cancel(
    State(gateway): State<Arc<Gateway>>,
    who: Who,
    Id(id): Id<RunId>,
) -> Answer<(StatusCode, Json<Run>)> {
    who.require(Scope::Run)?;
    let caller = who.caller;
    let run = gateway.coordinator.ask(&CancelRun { caller, id }).await?;
    let status = match run.state.is_final() {
        true => StatusCode::OK,
        false => StatusCode::ACCEPTED,
    };
    Ok((status, Json(run)))
}
