//! `GET /v1/sandboxes/{id}/execs/{exec}/events` and `/ws`: a program as it goes on.

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use firelane_model::id::{ExecId, SandboxId};
use firelane_wire::bus::GetExec;
use firelane_wire::event::EventData;
use firelane_wire::key::Scope;
use firelane_wire::problem::Problem;

use super::super::place::Place;
use crate::Gateway;
use crate::auth::Who;
use crate::failure::Answer;
use crate::follow::{Log, events, ws};
use crate::path::Ids;

/// What happens to a program, as server-sent events
///
/// `started`, `stdout`, `stderr`, and `ended` as the last; `gap` where events are gone. A client that
/// lost its connection goes on with `Last-Event-ID`.
#[utoipa::path(get, path = "/v1/sandboxes/{id}/execs/{exec}/events", operation_id = "exec_events",
    tag = "execs",
    params(("id" = String, Path, pattern = "^sbx-[0-9a-f]{32}$", description = "The sandbox"),
           ("exec" = String, Path, pattern = "^exe-[0-9a-f]{32}$", description = "The program"),
           ("Last-Event-ID" = Option<u64>, Header, description = "The last event that is known")),
    responses((status = 200, description = "The events; the data of each is JSON",
               body = EventData, content_type = "text/event-stream"),
              (status = 204, description = "The last event is known: nothing follows"),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json")))]
pub(crate) async fn events(
    State(gateway): State<Arc<Gateway>>,
    who: Who,
    headers: HeaderMap,
    Ids(sandbox, id): Ids<SandboxId, ExecId>,
) -> Answer<Response> {
    who.require(Scope::Sandbox)?;
    let Place { agent, sandbox } = gateway.place(who.caller.tenant, sandbox).await?;
    let log = Log::Exec { agent, sandbox, id };
    events::stream(log, &headers).await
}

/// A program's events and its input over a WebSocket
///
/// Standard input is open if the program is `interactive`.
#[utoipa::path(get, path = "/v1/sandboxes/{id}/execs/{exec}/ws", operation_id = "exec_ws", tag = "execs",
    params(("id" = String, Path, pattern = "^sbx-[0-9a-f]{32}$", description = "The sandbox"),
           ("exec" = String, Path, pattern = "^exe-[0-9a-f]{32}$", description = "The program")),
    responses((status = 101, description = "The WebSocket is open"),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json")))]
pub(crate) async fn ws(
    State(gateway): State<Arc<Gateway>>,
    who: Who,
    Ids(sandbox, id): Ids<SandboxId, ExecId>,
    upgrade: ws::Upgrade,
) -> Answer<Response> {
    who.require(Scope::Sandbox)?;
    let Place { agent, sandbox } = gateway.place(who.caller.tenant, sandbox).await?;
    let get = GetExec {
        sandbox: sandbox.clone(),
        id,
    };
    agent.ask(&get).await?;
    ws::upgrade(Log::Exec { agent, sandbox, id }, upgrade)
}
