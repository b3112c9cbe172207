//! What is at a path: `GET …/entries/{path}`, `DELETE …/files/{path}`, `POST …/files:move`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Json;
use firelane_model::id::SandboxId;
use firelane_wire::bus::{MoveFile, RemoveFile, StatFile};
use firelane_wire::file::{Entry, MoveRequest};
use firelane_wire::key::Scope;
use firelane_wire::problem::Problem;
use serde::Deserialize;

use super::super::place::Place;
use super::at::At;
use crate::Gateway;
use crate::auth::Who;
use crate::body::{self, Query};
use crate::failure::Answer;
use crate::path::Id;

/// How to remove a file.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct RemoveQuery {
    /// A folder with all that it holds.
    #[serde(default)]
    #[param(default = false)]
    recursive: bool,
}

/// What is at a path
///
/// Links are not followed.
#[utoipa::path(get, path = "/v1/sandboxes/{id}/entries/{path}", operation_id = "file_stat", tag = "files",
    params(("id" = String, Path, pattern = "^sbx-[0-9a-f]{32}$", description = "The sandbox"),
           ("path" = String, Path, description = "Its absolute path, without the first slash")),
    responses((status = 200, description = "What it is", body = Entry),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json")))]
pub(crate) async fn get(
    State(gateway): State<Arc<Gateway>>,
    who: Who,
    At { sandbox, path }: At,
) -> Answer<Json<Entry>> {
    who.require(Scope::Sandbox)?;
    let Place { agent, sandbox } = gateway.place(who.caller.tenant, sandbox).await?;
    Ok(Json(agent.ask(&StatFile { sandbox, path }).await?))
}

/// Removes a file, a link or a folder
#[utoipa::path(delete, path = "/v1/sandboxes/{id}/files/{path}", operation_id = "file_remove", tag = "files",
    params(("id" = String, Path, pattern = "^sbx-[0-9a-f]{32}$", description = "The sandbox"),
           ("path" = String, Path, description = "Its absolute path, without the first slash"),
           RemoveQuery),
    responses((status = 204, description = "It is gone"),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json")))]
pub(crate) async fn remove(
    State(gateway): State<Arc<Gateway>>,
    who: Who,
    At { sandbox, path }: At,
    Query(query): Query<RemoveQuery>,
) -> Answer<StatusCode> {
    who.require(Scope::Sandbox)?;
    let Place { agent, sandbox } = gateway.place(who.caller.tenant, sandbox).await?;
    let call = RemoveFile {
        sandbox,
        path,
        recursive: query.recursive,
    };
    agent.ask(&call).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Gives a file, a folder or a link another path
#[utoipa::path(post, path = "/v1/sandboxes/{id}/files:move", operation_id = "file_move", tag = "files",
    request_body = MoveRequest,
    params(("id" = String, Path, pattern = "^sbx-[0-9a-f]{32}$", description = "The sandbox"),
           ("Idempotency-Key" = Option<String>, Header,
            description = "The same key of the same tenant gets the same answer, for a day")),
    responses((status = 204, description = "It has the path"),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json")))]
pub(crate) async fn change_path(
    State(gateway): State<Arc<Gateway>>,
    who: Who,
    Id(sandbox): Id<SandboxId>,
    body::Json(request): body::Json<MoveRequest>,
) -> Answer<StatusCode> {
    who.require(Scope::Sandbox)?;
    request.check()?;
    let Place { agent, sandbox } = gateway.place(who.caller.tenant, sandbox).await?;
    agent.ask(&MoveFile { sandbox, request }).await?;
    Ok(StatusCode::NO_CONTENT)
}
