//! What changes a sandbox: `PATCH` and `DELETE /v1/sandboxes/{id}`, `:pause`, `:resume`, `:rollback`.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Json;
use firelane_model::id::SandboxId;
use firelane_wire::bus::{ChangeSandbox, SLOW_CALL_S, SandboxChange};
use firelane_wire::key::Scope;
use firelane_wire::problem::Problem;
use firelane_wire::sandbox::{RollbackRequest, Sandbox, SandboxPatch};

use crate::Gateway;
use crate::auth::Who;
use crate::body;
use crate::failure::Answer;
use crate::path::Id;

/// Changes a sandbox's time, its policy or its labels
///
/// What is absent stays. Labels are replaced as a whole.
#[utoipa::path(patch, path = "/v1/sandboxes/{id}", operation_id = "sandbox_update", tag = "sandboxes",
    params(("id" = String, Path, pattern = "^sbx-[0-9a-f]{32}$", description = "The sandbox")),
    request_body = SandboxPatch,
    responses((status = 200, description = "The sandbox as it then is", body = Sandbox),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json")))]
pub(crate) async fn patch(
    State(gateway): State<Arc<Gateway>>,
    who: Who,
    Id(id): Id<SandboxId>,
    body::Json(patch): body::Json<SandboxPatch>,
) -> Answer<Json<Sandbox>> {
    who.require(Scope::Sandbox)?;
    patch.check()?;
    change(&gateway, who, id, SandboxChange::Patch(patch)).await
}

/// Destroys a sandbox, with everything that runs in it
///
/// One that is gone already stays so.
#[utoipa::path(delete, path = "/v1/sandboxes/{id}", operation_id = "sandbox_destroy", tag = "sandboxes",
    params(("id" = String, Path, pattern = "^sbx-[0-9a-f]{32}$", description = "The sandbox")),
    responses((status = 200, description = "The sandbox as it then is", body = Sandbox),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json")))]
pub(crate) async fn destroy(
    State(gateway): State<Arc<Gateway>>,
    who: Who,
    Id(id): Id<SandboxId>,
) -> Answer<Json<Sandbox>> {
    who.require(Scope::Sandbox)?;
    change(&gateway, who, id, SandboxChange::Destroy).await
}

/// Stops a sandbox's processors
///
/// The next program or file that is asked for wakes it.
#[utoipa::path(post, path = "/v1/sandboxes/{id}:pause", operation_id = "sandbox_pause", tag = "sandboxes",
    params(("id" = String, Path, pattern = "^sbx-[0-9a-f]{32}$", description = "The sandbox"),
           ("Idempotency-Key" = Option<String>, Header,
            description = "The same key of the same tenant gets the same answer, for a day")),
    responses((status = 200, description = "The sandbox as it then is", body = Sandbox),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json")))]
pub(super) async fn pause(gateway: &Gateway, who: Who, id: SandboxId) -> Answer<Json<Sandbox>> {
    change(gateway, who, id, SandboxChange::Pause).await
}

/// Lets a sandbox's processors go on
#[utoipa::path(post, path = "/v1/sandboxes/{id}:resume", operation_id = "sandbox_resume", tag = "sandboxes",
    params(("id" = String, Path, pattern = "^sbx-[0-9a-f]{32}$", description = "The sandbox"),
           ("Idempotency-Key" = Option<String>, Header,
            description = "The same key of the same tenant gets the same answer, for a day")),
    responses((status = 200, description = "The sandbox as it then is", body = Sandbox),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json")))]
pub(super) async fn resume(gateway: &Gateway, who: Who, id: SandboxId) -> Answer<Json<Sandbox>> {
    change(gateway, who, id, SandboxChange::Resume).await
}

/// Puts a sandbox back to one of its snapshots
///
/// Memory, programs and files are then as they were when it was taken.
#[utoipa::path(post, path = "/v1/sandboxes/{id}:rollback", operation_id = "sandbox_rollback",
    tag = "sandboxes", request_body = RollbackRequest,
    params(("id" = String, Path, pattern = "^sbx-[0-9a-f]{32}$", description = "The sandbox"),
           ("Idempotency-Key" = Option<String>, Header,
            description = "The same key of the same tenant gets the same answer, for a day")),
    responses((status = 200, description = "The sandbox as it then is", body = Sandbox),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json")))]
pub(super) async fn roll_back(
    gateway: &Gateway,
    who: Who,
    id: SandboxId,
    request: RollbackRequest,
) -> Answer<Json<Sandbox>> {
    change(gateway, who, id, SandboxChange::RollBack(request.snapshot)).await
}

async fn change(
    gateway: &Gateway,
    who: Who,
    id: SandboxId,
    change: SandboxChange,
) -> Answer<Json<Sandbox>> {
    let call = ChangeSandbox {
        caller: who.caller,
        id,
        change,
    };
    let longer = Duration::from_secs(SLOW_CALL_S);
    Ok(Json(gateway.coordinator.ask_for(&call, longer).await?))
}
