//! `/v1/sandboxes/{id}/folders/{path}`: a page of a folder, and making one.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Json;
use firelane_wire::bus::{ListFolder, MakeFolder};
use firelane_wire::file::Folder;
use firelane_wire::key::Scope;
use firelane_wire::page::{DEFAULT_LIMIT, MAX_LIMIT, PageQuery};
use firelane_wire::problem::{Code, Problem};

use super::super::place::Place;
use super::at::At;
use super::cursor;
use crate::Gateway;
use crate::auth::Who;
use crate::body::Query;
use crate::failure::{Answer, Failure};

/// A page of a folder, by the bytes of the names
#[utoipa::path(get, path = "/v1/sandboxes/{id}/folders/{path}", operation_id = "folder_list", tag = "files",
    params(("id" = String, Path, pattern = "^sbx-[0-9a-f]{32}$", description = "The sandbox"),
           ("path" = String, Path, description = "Its absolute path, without the first slash"),
           PageQuery),
    responses((status = 200, description = "A page of it", body = Folder),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json")))]
pub(crate) async fn list(
    State(gateway): State<Arc<Gateway>>,
    who: Who,
    At { sandbox, path }: At,
    Query(page): Query<PageQuery>,
) -> Answer<Json<Folder>> {
    who.require(Scope::Sandbox)?;
    let limit = page.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        let cause = format!("limit is {limit}, not from 1 to {MAX_LIMIT}");
        return Err(Failure::new(Code::Invalid, cause));
    }
    let after = cursor::name(page.cursor.as_deref().unwrap_or_default())?;
    let Place { agent, sandbox } = gateway.place(who.caller.tenant, sandbox).await?;
    let call = ListFolder {
        sandbox,
        path,
        after,
        limit,
    };
    let mut folder = agent.ask(&call).await?;
    // The agent says whether more follows; where it goes on is in the last name.
    let more = folder.next_cursor.is_some();
    let last = folder.entries.last().filter(|_| more);
    folder.next_cursor = last.map(cursor::after);
    Ok(Json(folder))
}

/// Makes a folder, and those above it that are missing
///
/// One that is there stays as it is.
#[utoipa::path(put, path = "/v1/sandboxes/{id}/folders/{path}", operation_id = "folder_create", tag = "files",
    params(("id" = String, Path, pattern = "^sbx-[0-9a-f]{32}$", description = "The sandbox"),
           ("path" = String, Path, description = "Its absolute path, without the first slash")),
    responses((status = 204, description = "It is there"),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json")))]
pub(crate) async fn make(
    State(gateway): State<Arc<Gateway>>,
    who: Who,
    At { sandbox, path }: At,
) -> Answer<StatusCode> {
    who.require(Scope::Sandbox)?;
    let Place { agent, sandbox } = gateway.place(who.caller.tenant, sandbox).await?;
    agent.ask(&MakeFolder { sandbox, path }).await?;
    Ok(StatusCode::NO_CONTENT)
}
