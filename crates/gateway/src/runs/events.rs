//! `GET /v1/runs/{id}/events`: what happens to a run, as it happens.

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use firelane_model::id::RunId;
use firelane_wire::event::EventData;
use firelane_wire::key::Scope;
use firelane_wire::problem::Problem;

use crate::Gateway;
use crate::auth::Who;
use crate::failure::Answer;
use crate::follow::events;
use crate::path::Id;

/// What happens to a run, as server-sent events
///
/// `started`, `stdout`, `stderr`, `file`, `missing`, and `ended` as the last; `gap` where events are
/// gone. A client that lost its connection goes on with `Last-Event-ID`.
#[utoipa::path(get, path = "/v1/runs/{id}/events", operation_id = "run_events", tag = "runs",
    params(("id" = String, Path, pattern = "^run-[0-9a-f]{32}$", description = "The run"),
           ("Last-Event-ID" = Option<u64>, Header, description = "The last event that is known")),
    responses((status = 200, description = "The events; the data of each is JSON",
               body = EventData, content_type = "text/event-stream"),
              (status = 204, description = "The last event is known: nothing follows"),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json")))]
pub(crate) async fn get(
    State(gateway): State<Arc<Gateway>>,
    who: Who,
    headers: HeaderMap,
    Id(id): Id<RunId>,
) -> Answer<Response> {
    who.require(Scope::Run)?;
    let log = gateway.log_of_run(&who.caller.tenant, id);
    events::stream(log, &headers).await
}
