//! A log as server-sent events.
//!
//! Source: WHATWG HTML, "Server-sent events": the `id` of each event is its number in the log, and a
//! client that comes back with `Last-Event-ID` goes on after it.

use std::convert::Infallible;

use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use firelane_wire::event::{EventData, LogPage, ReadLog};
use firelane_wire::problem::Code;
use futures_util::stream::{self, StreamExt};
use serde::Serialize;

use super::Log;
use crate::failure::{Answer, Failure};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// How long is waited for more at a time, in milliseconds.
const WAIT_MS: u64 = 15_000;
/// Bytes of a log that are read at once. A client that does not read holds up no more than this.
const PAGE_BYTES: u64 = 64 << 10;

/// The events of a log after the one that the headers name.
pub(crate) async fn stream(log: Log, headers: &HeaderMap) -> Answer<Response> {
    let after = last_event_id(headers)?;
    // What is wrong is told with a status while that is still possible.
    let look = ReadLog {
        after,
        max_bytes: 0,
        wait_ms: 0,
        whole: false,
    };
    let page = log.read(look).await?;
    if page.end && page.events.is_empty() && page.gap.is_none() {
        // Nothing follows, ever: this is what keeps a client from coming back.
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let reader = Reader {
        log,
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

/// The number of the last event that a client has; 0 if it has none.
pub(crate) fn last_event_id(headers: &HeaderMap) -> Result<u64, Failure> {
    let Some(value) = headers.get(LAST_EVENT_ID) else {
        return Ok(0);
    };
    // What is described as int64 ends there; no log gets so far.
    let number: Option<i64> = value.to_str().ok().and_then(|text| text.parse().ok());
    let number = number.and_then(|number| number.try_into().ok());
    number.ok_or_else(|| Failure::new(Code::Invalid, "Last-Event-ID is not a number"))
}

struct Reader {
    log: Log,
    after: u64,
    ended: bool,
}

impl Reader {
    async fn next(&mut self) -> Vec<sse::Event> {
        let read = ReadLog {
            after: self.after,
            max_bytes: PAGE_BYTES,
            wait_ms: WAIT_MS,
            whole: false,
        };
        match self.log.read(read).await {
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
            events.push(written("gap", Some(last), &gap(first, last)));
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

/// The data of an event that tells that others are gone.
pub(super) fn gap(first: u64, last: u64) -> EventData {
    EventData {
        first: Some(first),
        last: Some(last),
        ..EventData::default()
    }
}

/// An event of a stream.
pub(crate) fn written(name: &str, number: Option<u64>, data: &impl Serialize) -> sse::Event {
    // Strings and numbers: this cannot fail.
    let json = serde_json::to_string(data).unwrap_or_default();
    let event = sse::Event::default().event(name).data(json);
    match number {
        Some(number) => event.id(number.to_string()),
        None => event,
    }
}
