//! Snapshots: `/v1/sandboxes/{id}/snapshots` and `/v1/snapshots`.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{Json, Response};
use firelane_model::id::{SandboxId, SnapshotId};
use firelane_wire::bus::{
    GetSandbox, GetSnapshot, ListSnapshots, RemoveSnapshot, SLOW_CALL_S, TakeSnapshot,
};
use firelane_wire::key::Scope;
use firelane_wire::page::{Page, PageQuery};
use firelane_wire::problem::Problem;
use firelane_wire::snapshot::Snapshot;

use crate::Gateway;
use crate::auth::Who;
use crate::body::Query;
use crate::created::created;
use crate::failure::Answer;
use crate::path::Id;

/// Takes a snapshot of a sandbox, and keeps it
///
/// The sandbox goes on as it was.
#[utoipa::path(post, path = "/v1/sandboxes/{id}/snapshots", operation_id = "snapshot_create",
    tag = "snapshots",
    params(("id" = String, Path, pattern = "^sbx-[0-9a-f]{32}$", description = "The sandbox"),
           ("Idempotency-Key" = Option<String>, Header,
            description = "The same key of the same tenant gets the same answer, for a day")),
    responses((status = 201, description = "The snapshot", body = Snapshot),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json")))]
pub(crate) async fn take(
    State(gateway): State<Arc<Gateway>>,
    who: Who,
    Id(sandbox): Id<SandboxId>,
) -> Answer<Response> {
    who.require(Scope::Sandbox)?;
    let caller = who.caller;
    let call = TakeSnapshot { caller, sandbox };
    let longer = Duration::from_secs(SLOW_CALL_S);
    let snapshot = gateway.coordinator.ask_for(&call, longer).await?;
    Ok(created(
        &format!("/v1/snapshots/{}", snapshot.id),
        &snapshot,
    ))
}

/// The snapshots of a sandbox, newest first
#[utoipa::path(get, path = "/v1/sandboxes/{id}/snapshots", operation_id = "sandbox_snapshots",
    tag = "snapshots",
    params(("id" = String, Path, pattern = "^sbx-[0-9a-f]{32}$", description = "The sandbox"), PageQuery),
    responses((status = 200, description = "A page of them", body = Page<Snapshot>),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json")))]
pub(crate) async fn of_sandbox(
    State(gateway): State<Arc<Gateway>>,
    who: Who,
    Id(id): Id<SandboxId>,
    Query(page): Query<PageQuery>,
) -> Answer<Json<Page<Snapshot>>> {
    who.require(Scope::Sandbox)?;
    let tenant = who.caller.tenant;
    let get = GetSandbox {
        tenant: tenant.clone(),
        id,
    };
    // A sandbox that is not there has no list, rather than an empty one.
    gateway.coordinator.ask(&get).await?;
    let call = ListSnapshots {
        tenant,
        sandbox: Some(id),
        page,
    };
    Ok(Json(gateway.coordinator.ask(&call).await?))
}

/// The tenant's snapshots, newest first
#[utoipa::path(get, path = "/v1/snapshots", operation_id = "snapshot_list", tag = "snapshots",
    params(PageQuery),
    responses((status = 200, description = "A page of them", body = Page<Snapshot>),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json")))]
pub(crate) async fn list(
    State(gateway): State<Arc<Gateway>>,
    who: Who,
    Query(page): Query<PageQuery>,
) -> Answer<Json<Page<Snapshot>>> {
    who.require(Scope::Sandbox)?;
    let call = ListSnapshots {
        tenant: who.caller.tenant,
        sandbox: None,
        page,
    };
    Ok(Json(gateway.coordinator.ask(&call).await?))
}

/// A snapshot
#[utoipa::path(get, path = "/v1/snapshots/{id}", operation_id = "snapshot_get", tag = "snapshots",
    params(("id" = String, Path, pattern = "^snp-[0-9a-f]{32}$", description = "The snapshot")),
    responses((status = 200, description = "The snapshot", body = Snapshot),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json")))]
pub(crate) async fn get(
    State(gateway): State<Arc<Gateway>>,
    who: Who,
    Id(id): Id<SnapshotId>,
) -> Answer<Json<Snapshot>> {
    who.require(Scope::Sandbox)?;
    let tenant = who.caller.tenant;
    let snapshot = gateway.coordinator.ask(&GetSnapshot { tenant, id }).await?;
    Ok(Json(snapshot))
}

/// Removes a snapshot
///
/// Sandboxes that began from it stay.
#[utoipa::path(delete, path = "/v1/snapshots/{id}", operation_id = "snapshot_remove", tag = "snapshots",
    params(("id" = String, Path, pattern = "^snp-[0-9a-f]{32}$", description = "The snapshot")),
    responses((status = 204, description = "It is gone"),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json")))]
pub(crate) async fn remove(
    State(gateway): State<Arc<Gateway>>,
    who: Who,
    Id(id): Id<SnapshotId>,
) -> Answer<StatusCode> {
    who.require(Scope::Sandbox)?;
    let caller = who.caller;
    let remove = RemoveSnapshot { caller, id };
    gateway.coordinator.ask(&remove).await?;
    Ok(StatusCode::NO_CONTENT)
}
