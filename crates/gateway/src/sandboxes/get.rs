//! `GET /v1/sandboxes/{id}`: a sandbox as it is now.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Json;
use firelane_model::id::SandboxId;
use firelane_wire::bus::GetSandbox;
use firelane_wire::key::Scope;
use firelane_wire::problem::Problem;
use firelane_wire::sandbox::Sandbox;

use crate::Gateway;
use crate::auth::Who;
use crate::failure::Answer;
use crate::path::Id;

/// A sandbox as it is now, or as it was at its end
#[utoipa::path(get, path = "/v1/sandboxes/{id}", operation_id = "sandbox_get", tag = "sandboxes",
    params(("id" = String, Path, pattern = "^sbx-[0-9a-f]{32}$", description = "The sandbox")),
    responses((status = 200, description = "The sandbox", body = Sandbox),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json")))]
pub(crate) async fn get(
    State(gateway): State<Arc<Gateway>>,
    who: Who,
    Id(id): Id<SandboxId>,
) -> Answer<Json<Sandbox>> {
    who.require(Scope::Sandbox)?;
    let tenant = who.caller.tenant;
    let sandbox = gateway.coordinator.ask(&GetSandbox { tenant, id }).await?;
    Ok(Json(sandbox))
}
