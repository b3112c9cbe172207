//! `GET /v1/sandboxes/{id}/execs` and one of them: programs as they are now.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Json;
use firelane_model::id::{ExecId, SandboxId};
use firelane_wire::bus::{GetExec, ListExecs};
use firelane_wire::exec::Exec;
use firelane_wire::key::Scope;
use firelane_wire::problem::Problem;

use super::super::place::Place;
use crate::Gateway;
use crate::auth::Who;
use crate::failure::Answer;
use crate::path::{Id, Ids};

/// The programs of a sandbox that run, and those that ended last, newest first
#[utoipa::path(get, path = "/v1/sandboxes/{id}/execs", operation_id = "exec_list", tag = "execs",
    params(("id" = String, Path, pattern = "^sbx-[0-9a-f]{32}$", description = "The sandbox")),
    responses((status = 200, description = "The programs, without what they wrote", body = Vec<Exec>),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json")))]
pub(crate) async fn list(
    State(gateway): State<Arc<Gateway>>,
    who: Who,
    Id(sandbox): Id<SandboxId>,
) -> Answer<Json<Vec<Exec>>> {
    who.require(Scope::Sandbox)?;
    let Place { agent, sandbox } = gateway.place(who.caller.tenant, sandbox).await?;
    Ok(Json(agent.ask(&ListExecs { sandbox }).await?))
}

/// A program as it is now
#[utoipa::path(get, path = "/v1/sandboxes/{id}/execs/{exec}", operation_id = "exec_get", tag = "execs",
    params(("id" = String, Path, pattern = "^sbx-[0-9a-f]{32}$", description = "The sandbox"),
           ("exec" = String, Path, pattern = "^exe-[0-9a-f]{32}$", description = "The program")),
    responses((status = 200, description = "The program, without what it wrote", body = Exec),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json")))]
pub(crate) async fn get(
    State(gateway): State<Arc<Gateway>>,
    who: Who,
    Ids(sandbox, id): Ids<SandboxId, ExecId>,
) -> Answer<Json<Exec>> {
    who.require(Scope::Sandbox)?;
    let Place { agent, sandbox } = gateway.place(who.caller.tenant, sandbox).await?;
    Ok(Json(agent.ask(&GetExec { sandbox, id }).await?))
}
