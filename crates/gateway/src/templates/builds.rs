//! `POST /v1/templates` and `/v1/builds`: templates being built.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Json as JsonAnswer, Response};
use firelane_model::id::BuildId;
use firelane_store::bus::Calls;
use firelane_wire::bus::{BuildTemplate, FindBuild, ReadBuild};
use firelane_wire::key::Scope;
use firelane_wire::problem::Problem;
use firelane_wire::template::{Build, BuildEvent, BuildPage, BuildState, HostQuery, NewBuild};
use futures_util::stream::{self, StreamExt};

use crate::Gateway;
use crate::auth::Who;
use crate::body::{Json, Query};
use crate::created::locate;
use crate::failure::Answer;
use crate::follow::events::{last_event_id, written};
use crate::path::Id;

/// How long is waited for a line at a time, in milliseconds.
const WAIT_MS: u64 = 15_000;

/// Builds a template
///
/// Answers at once; the build goes on, one at a time on each host. A template of the name is replaced when the
/// build is done: what has begun with the old one goes on with that.
#[utoipa::path(post, path = "/v1/templates", operation_id = "template_build", tag = "templates",
    request_body = NewBuild,
    params(HostQuery,
           ("Idempotency-Key" = Option<String>, Header,
            description = "The same key of the same tenant gets the same answer, for a day")),
    responses((status = 202, description = "It is being built", body = Build),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json")))]
pub(crate) async fn start(
    State(gateway): State<Arc<Gateway>>,
    who: Who,
    Query(query): Query<HostQuery>,
    Json(request): Json<NewBuild>,
) -> Answer<Response> {
    who.require(Scope::Template)?;
    request.check()?;
    let call = BuildTemplate {
        caller: who.caller,
        host: query.host,
        request,
    };
    let build = gateway.coordinator.ask(&call).await?;
    let location = format!("/v1/builds/{}", build.id);
    let mut response = (StatusCode::ACCEPTED, JsonAnswer(build)).into_response();
    locate(&mut response, &location);
    Ok(response)
}

/// A build
#[utoipa::path(get, path = "/v1/builds/{id}", operation_id = "build_get", tag = "templates",
    params(("id" = String, Path, pattern = "^bld-[0-9a-f]{32}$", description = "The build")),
    responses((status = 200, description = "The build", body = Build),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json")))]
pub(crate) async fn get(
    State(gateway): State<Arc<Gateway>>,
    who: Who,
    Id(id): Id<BuildId>,
) -> Answer<JsonAnswer<Build>> {
    who.require(Scope::Template)?;
    let log = Log::find(&gateway, id).await?;
    Ok(JsonAnswer(log.read(u64::MAX, 0).await?.build))
}

/// What a build says, as server-sent events
///
/// `line` for each line of its log, and `ended` with the build as the last. Of a long log the oldest lines are
/// not kept. A client that lost its connection goes on with `Last-Event-ID`.
#[utoipa::path(get, path = "/v1/builds/{id}/events", operation_id = "build_events", tag = "templates",
    params(("id" = String, Path, pattern = "^bld-[0-9a-f]{32}$", description = "The build"),
           ("Last-Event-ID" = Option<u64>, Header, description = "The last event that is known")),
    responses((status = 200, description = "The events; the data of each is JSON",
               body = BuildEvent, content_type = "text/event-stream"),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json")))]
pub(crate) async fn events(
    State(gateway): State<Arc<Gateway>>,
    who: Who,
    headers: HeaderMap,
    Id(id): Id<BuildId>,
) -> Answer<Response> {
    who.require(Scope::Template)?;
    let after = last_event_id(&headers)?;
    let log = Log::find(&gateway, id).await?;
    // What is wrong is told with a status while that is still possible.
    log.read(u64::MAX, 0).await?;
    let pages = stream::unfold(Some((log, after)), |reading| async move {
        let (log, after) = reading?;
        let (events, after) = match log.read(after, WAIT_MS).await {
            Ok(page) => shown(&page, after),
            Err(problem) => {
                let event = BuildEvent {
                    problem: Some(problem),
                    ..BuildEvent::default()
                };
                (vec![written("problem", None, &event)], None)
            }
        };
        Some((stream::iter(events), after.map(|after| (log, after))))
    });
    let events = pages.flatten().map(Ok::<sse::Event, Infallible>);
    Ok(Sse::new(events)
        .keep_alive(KeepAlive::default())
        .into_response())
}

/// The events of a page, and the last line's number if more may follow.
fn shown(page: &BuildPage, after: u64) -> (Vec<sse::Event>, Option<u64>) {
    let last = page.lines.last().map(|(number, _)| *number);
    let mut events: Vec<_> = page
        .lines
        .iter()
        .map(|(number, line)| {
            let event = BuildEvent {
                step: Some(line.step.clone()),
                message: Some(line.message.clone()),
                ..BuildEvent::default()
            };
            written("line", Some(*number), &event)
        })
        .collect();
    // The end is told once there are no lines before it.
    if last.is_none() && page.build.state != BuildState::Running {
        let event = BuildEvent {
            build: Some(page.build.clone()),
            ..BuildEvent::default()
        };
        events.push(written("ended", None, &event));
        return (events, None);
    }
    (events, Some(last.unwrap_or(after)))
}

/// The log of a build, and who has it.
struct Log {
    agent: Calls,
    id: BuildId,
}

impl Log {
    async fn find(gateway: &Gateway, id: BuildId) -> Result<Log, Problem> {
        let host = gateway.coordinator.ask(&FindBuild { id }).await?;
        let agent = gateway.agent(&host);
        Ok(Log { agent, id })
    }

    async fn read(&self, after: u64, wait_ms: u64) -> Result<BuildPage, Problem> {
        let id = self.id;
        let call = ReadBuild { id, after, wait_ms };
        self.agent
            .ask_for(&call, Duration::from_millis(wait_ms))
            .await
    }
}

#[cfg(test)]
mod tests {
    use firelane_wire::template::BuildLine;

    use super::*;

    fn page(lines: u64, state: BuildState) -> BuildPage {
        let line = BuildLine {
            step: "packages".into(),
            message: "one".into(),
        };
        BuildPage {
            lines: (1..=lines).map(|number| (number, line.clone())).collect(),
            build: Build {
                id: BuildId::from_bits(1),
                template: "mine".into(),
                host: "here".into(),
                state,
                started_at: String::new(),
                problem: None,
            },
        }
    }

    #[test]
    fn the_end_is_told_last_and_once() {
        let check = |lines, state, events, after| {
            let (told, next) = shown(&page(lines, state), 7);
            assert_eq!((told.len(), next), (events, after), "{lines} {state:?}");
        };
        check(2, BuildState::Running, 2, Some(2));
        check(0, BuildState::Running, 0, Some(7));
        check(2, BuildState::Done, 2, Some(2));
        check(0, BuildState::Done, 1, None);
        check(0, BuildState::Failed, 1, None);
    }
}
