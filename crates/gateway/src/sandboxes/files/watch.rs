//! `GET /v1/sandboxes/{id}/watch/{path}`: what changes in a folder, as it happens.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use firelane_wire::bus::Piped;
use firelane_wire::event::EventData;
use firelane_wire::file::{FileEvent, FileEventKind};
use firelane_wire::key::Scope;
use firelane_wire::problem::Problem;
use futures_util::stream::{self, StreamExt};
use serde::Deserialize;

use super::at::At;
use super::pipe::Pipe;
use crate::Gateway;
use crate::auth::Who;
use crate::body::Query;
use crate::failure::Answer;
use crate::follow::events::written;

/// How long is waited for a change at a time.
const WAIT: Duration = Duration::from_secs(15);

/// What to watch.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct WatchQuery {
    /// What changes below its folders too.
    #[serde(default)]
    #[param(default = false)]
    recursive: bool,
}

/// What changes in a folder, as server-sent events
///
/// `created`, `modified`, `removed`, `moved`; `overflow` where changes were lost; `gone` as the last.
/// They have no numbers: a client that lost its connection looks again.
#[utoipa::path(get, path = "/v1/sandboxes/{id}/watch/{path}", operation_id = "folder_watch", tag = "files",
    params(("id" = String, Path, pattern = "^sbx-[0-9a-f]{32}$", description = "The sandbox"),
           ("path" = String, Path, description = "Its absolute path, without the first slash"),
           WatchQuery),
    responses((status = 200, description = "The events; the data of each is JSON",
               body = FileEvent, content_type = "text/event-stream"),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json")))]
pub(crate) async fn get(
    State(gateway): State<Arc<Gateway>>,
    who: Who,
    At { sandbox, path }: At,
    Query(query): Query<WatchQuery>,
) -> Answer<Response> {
    who.require(Scope::Sandbox)?;
    let recursive = query.recursive;
    let place = gateway.place(who.caller.tenant, sandbox).await?;
    let (pipe, _) = Pipe::open(place, Piped::Watch { path, recursive }).await?;
    let parts = stream::unfold(Some(pipe), |pipe| async {
        let mut pipe = pipe?;
        Some(match pipe.read(WAIT).await {
            Ok(part) => {
                let events: Vec<sse::Event> = part.events.iter().map(shown).collect();
                (stream::iter(events), (!part.end).then_some(pipe))
            }
            Err(problem) => {
                let data = EventData {
                    problem: Some(problem),
                    ..EventData::default()
                };
                let last = vec![written("problem", None, &data)];
                (stream::iter(last), None)
            }
        })
    });
    let events = parts.flatten().map(Ok::<sse::Event, Infallible>);
    Ok(Sse::new(events)
        .keep_alive(KeepAlive::default())
        .into_response())
}

fn shown(event: &FileEvent) -> sse::Event {
    let name = match event.kind {
        FileEventKind::Created => "created",
        FileEventKind::Modified => "modified",
        FileEventKind::Removed => "removed",
        FileEventKind::Moved => "moved",
        FileEventKind::Overflow => "overflow",
        FileEventKind::Gone => "gone",
    };
    written(name, None, event)
}
