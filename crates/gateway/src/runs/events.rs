//! `GET /v1/runs/{id}/events`: what happens to a run, as it happens.
//!
//! Source: WHATWG HTML, "Server-sent events": the `id` of each event is its number in the log, and a
//! client that comes back with `Last-Event-ID` goes on after it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use firelane_model::id::RunId;
use firelane_wire::bus::ReadRun;
use firelane_wire::event::{EventData, LogPage, ReadLog};
use firelane_wire::key::Scope;
use firelane_wire::problem::{Code, Problem};
use futures_util::stream::{self, StreamExt};

use crate::Gateway;
use crate::auth::Who;
use crate::body::Id;
use crate::failure::{Answer, Failure};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// How long the coordinator is asked to wait for more, in milliseconds.
const WAIT_MS: u64 = 15_000;
/// Bytes of a log that are read at once. A client that does not read holds up no more than this.
const PAGE_BYTES: u64 = 64 << 10;

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
pub(crate) async fn events(
    State(gateway): State<Arc<Gateway>>,
    who: Who,
    headers: HeaderMap,
    Id(id): Id<RunId>,
) -> Answer<Response> {
    who.require(Scope::Run)?;
    let after = last_event_id(&headers)?;
    let tenant = who.caller.tenant;
    // What is wrong is told with a status while that is still possible.
    let look = ReadRun {
        tenant: tenant.clone(),
        id,
        read: ReadLog {
            after,
            max_bytes: 0,
            wait_ms: 0,
            whole: false,
        },
    };
    let page = gateway.coordinator.ask(&look).await?;
    if page.end && page.events.is_empty() && page.gap.is_none() {
        // Nothing follows, ever: this is what keeps a client from coming back.
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let reader = Reader {
        gateway,
        tenant,
        id,
        after,
        ended: false,
    };
    let pages = stream::unfold(reader, |mut reader| async move {
        if reader.ended {
            return None;
        }
        let events = reader.next().await;
        Some((stream::iter(events), reader))
    });
    let events = pages.flatten();
    let events = events.map(Ok::<sse::Event, Infallible>);
    Ok(Sse::new(events)
        .keep_alive(KeepAlive::default())
        .into_response())
}

fn last_event_id(headers: &HeaderMap) -> Result<u64, Failure> {
    let Some(value) = headers.get(LAST_EVENT_ID) else {
        return Ok(0);
    };
    // What is described as int64 ends there; no log gets so far.
    let number: Option<i64> = value.to_str().ok().and_then(|text| text.parse().ok());
    let number = number.and_then(|number| number.try_into().ok());
    number.ok_or_else(|| Failure::new(Code::Invalid, "Last-Event-ID is not a number"))
}

struct Reader {
    gateway: Arc<Gateway>,
    tenant: String,
    id: RunId,
    after: u64,
    ended: bool,
}

impl Reader {
    async fn next(&mut self) -> Vec<sse::Event> {
        let call = ReadRun {
            tenant: self.tenant.clone(),
            id: self.id,
            read: ReadLog {
                after: self.after,
                max_bytes: PAGE_BYTES,
                wait_ms: WAIT_MS,
                whole: false,
            },
        };
        let longer = Duration::from_millis(WAIT_MS);
        match self.gateway.coordinator.ask_for(&call, longer).await {
            Ok(page) => self.shown(page),
            Err(problem) => {
                self.ended = true;
                let data = EventData {
                    problem: Some(problem),
                    ..EventData::default()
                };
                vec![written("problem", None, &data)]
            }
        }
    }

    fn shown(&mut self, page: LogPage) -> Vec<sse::Event> {
        let mut events = Vec::new();
        if let Some((first, last)) = page.gap {
            let data = EventData {
                first: Some(first),
                last: Some(last),
                ..EventData::default()
            };
            events.push(written("gap", Some(last), &data));
            self.after = last;
        }
        for (number, event) in page.events {
            self.after = number;
            let name = event.name();
            events.push(written(name, Some(number), &event.shown()));
        }
        self.ended = page.end;
        events
    }
}

fn written(name: &str, number: Option<u64>, data: &EventData) -> sse::Event {
    // Strings and numbers: this cannot fail.
    let json = serde_json::to_string(data).unwrap_or_default();
    let event = sse::Event::default().event(name).data(json);
    match number {
        Some(number) => event.id(number.to_string()),
        None => event,
    }
}
