//! `/v1/sandboxes/{id}/archives/{path}`: a folder as a tar archive, out and in.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Json, Response};
use firelane_wire::bus::Piped;
use firelane_wire::key::Scope;
use firelane_wire::problem::Problem;
use serde::Serialize;
use utoipa::ToSchema;

use super::at::At;
use super::incoming::pour;
use super::outgoing;
use super::pipe::Pipe;
use crate::Gateway;
use crate::auth::Who;
use crate::failure::Answer;

/// What was written of an archive.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Unpacked {
    /// Files, folders and links.
    entries: u64,
    /// Bytes of files.
    bytes: u64,
}

/// A folder as a tar archive
///
/// An answer that breaks off is not the whole folder.
#[utoipa::path(get, path = "/v1/sandboxes/{id}/archives/{path}", operation_id = "archive_get", tag = "files",
    params(("id" = String, Path, pattern = "^sbx-[0-9a-f]{32}$", description = "The sandbox"),
           ("path" = String, Path, description = "Its absolute path, without the first slash")),
    responses((status = 200, description = "The archive", body = Vec<u8>, content_type = "application/x-tar"),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json")))]
pub(crate) async fn get(
    State(gateway): State<Arc<Gateway>>,
    who: Who,
    At { sandbox, path }: At,
) -> Answer<Response> {
    who.require(Scope::Sandbox)?;
    let place = gateway.place(who.caller.tenant, sandbox).await?;
    let (pipe, _) = Pipe::open(place, Piped::Pack { path }).await?;
    let headers = [
        (header::CONTENT_TYPE, "application/x-tar"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    Ok((headers, outgoing::body(pipe, None)).into_response())
}

/// Unpacks a tar archive into a folder
///
/// Not as a whole: what was written before the first entry that is refused stays, and the problem
/// names that entry.
#[utoipa::path(put, path = "/v1/sandboxes/{id}/archives/{path}", operation_id = "archive_put", tag = "files",
    params(("id" = String, Path, pattern = "^sbx-[0-9a-f]{32}$", description = "The sandbox"),
           ("path" = String, Path, description = "The folder's absolute path, without the first slash")),
    request_body(content = Vec<u8>, content_type = "application/x-tar", description = "The archive"),
    responses((status = 200, description = "What was written", body = Unpacked),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json")))]
pub(crate) async fn put(
    State(gateway): State<Arc<Gateway>>,
    who: Who,
    At { sandbox, path }: At,
    body: Body,
) -> Answer<Json<Unpacked>> {
    who.require(Scope::Sandbox)?;
    let place = gateway.place(who.caller.tenant, sandbox).await?;
    let (pipe, _) = Pipe::open(place, Piped::Unpack { path }).await?;
    let done = pour(pipe, body, None).await?;
    Ok(Json(Unpacked {
        entries: done.entries,
        bytes: done.bytes,
    }))
}
