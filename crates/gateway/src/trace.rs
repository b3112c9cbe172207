//! What every answer has: the request's id, how long it took, and a body if it is a problem.
//!
//! Sources: W3C, "Server Timing" (working draft of 2023-04-11), for `Server-Timing`; W3C, "Trace Context"
//! (level 1), for `traceparent`.

use std::time::Instant;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;
use firelane_wire::problem::Problem;
use firelane_wire::trace::TraceParent;
use uuid::Uuid;

/// Header with the request's id.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
/// Longest id that a caller may give, in bytes.
const MAX_ID_BYTES: usize = 128;

/// The request's id: the caller's own, if it is a plain word, else a fresh one.
#[derive(Clone, Debug)]
pub(crate) struct RequestId(pub(crate) String);

/// Durations that a handler measured, in order; added to `Server-Timing`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timings(pub(crate) Vec<(&'static str, f64)>);

pub(crate) async fn layer(mut request: Request, next: Next) -> Response {
    let start = Instant::now();
    let id = request
        .headers()
        .get(&REQUEST_ID)
        .and_then(|value| value.to_str().ok())
        .filter(|id| plain(id))
        .map_or_else(|| Uuid::now_v7().simple().to_string(), str::to_owned);
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    request.extensions_mut().insert(RequestId(id.clone()));
    let mut response = next.run(request).await;
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        tell(&problem, &id, &method, &path);
        write(&mut response, problem, &id);
    }
    let timings = response.extensions_mut().remove::<Timings>();
    let total_ms = start.elapsed().as_secs_f64() * 1e3;
    let timing = server_timing(timings.unwrap_or_default(), total_ms);
    for (name, value) in [(SERVER_TIMING, timing), (REQUEST_ID, id)] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// The caller's span; what is malformed is none, as the recommendation has it.
pub(crate) fn traceparent(headers: &HeaderMap) -> Option<TraceParent> {
    let mut values = headers.get_all(TRACEPARENT).iter();
    match (values.next(), values.next()) {
        (Some(only), None) => only.to_str().ok()?.parse().ok(),
        _ => None,
    }
}

fn plain(id: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    !id.is_empty() && id.len() <= MAX_ID_BYTES && id.bytes().all(plain)
}

fn tell(problem: &Problem, id: &str, method: &axum::http::Method, path: &str) {
    let (code, cause) = (problem.code.name(), &problem.cause);
    if problem.status() >= 500 {
        tracing::warn!(request = id, %method, path, code, cause, "a request failed");
    } else {
        tracing::debug!(request = id, %method, path, code, "a request was refused");
    }
}

fn write(response: &mut Response, problem: Problem, id: &str) {
    let problem = Problem {
        request_id: id.to_owned(),
        ..problem
    };
    // Strings and numbers: this cannot fail.
    let body = serde_json::to_vec(&problem).unwrap_or_default();
    *response.body_mut() = Body::from(body);
    let headers = response.headers_mut();
    let json = HeaderValue::from_static("application/problem+json");
    headers.insert(header::CONTENT_TYPE, json);
    headers.remove(header::CONTENT_LENGTH);
}

fn server_timing(timings: Timings, total_ms: f64) -> String {
    let all = timings.0.into_iter().chain([("total", total_ms)]);
    let entries: Vec<String> = all
        .map(|(name, ms)| format!("{name};dur={ms:.3}"))
        .collect();
    entries.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callers_id_is_taken_if_it_is_a_plain_word() {
        let check = |id: &str, expected| assert_eq!(plain(id), expected, "{id:?}");
        check("a-B_9.z", true);
        check("", false);
        check("a b", false);
        check("a\nb", false);
        check(&"x".repeat(129), false);
    }

    #[test]
    fn timings_are_written_in_order() {
        let timings = Timings(vec![("queue", 1.0), ("exec", 2.5)]);
        let expected = "queue;dur=1.000, exec;dur=2.500, total;dur=4.000";
        assert_eq!(server_timing(timings, 4.0), expected);
    }
}
