//! The spans of requests that are about a sandbox: each is a part of the sandbox's own trace, or of
//! the caller's.
//!
//! Runs tell their own, once they are over. A sandbox lives for hours, so what was asked of it is
//! told when it is answered; the sandbox itself, when it is gone, by the coordinator.
//!
//! Source of the attributes' names: OpenTelemetry, "Semantic Conventions for HTTP spans" (1.27).

use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use firelane_model::id::SandboxId;
use firelane_traces::{Parent, Span, fresh_id, root_of};
use firelane_wire::problem::Problem;
use firelane_wire::trace::TraceParent;

use crate::Gateway;
use crate::path::Target;
use crate::trace::traceparent;

/// Where sandboxes are.
const SANDBOXES: &str = "/v1/sandboxes";

/// A request that has an answer.
struct Asked<'a> {
    method: &'a Method,
    /// The path with names where ids are: there are as many as the API has.
    route: &'a str,
    /// What follows the id's colon, if it is one that the API knows.
    verb: &'a str,
    caller: Option<TraceParent>,
    start: SystemTime,
}

/// Tells of requests about a sandbox.
pub(crate) async fn layer(
    State(gateway): State<Arc<Gateway>>,
    route: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Response {
    let sink = &gateway.config.traces;
    let Some(route) = route.filter(|route| sink.is_on() && route.as_str().starts_with(SANDBOXES))
    else {
        return next.run(request).await;
    };
    let method = request.method().clone();
    let caller = traceparent(request.headers());
    let path = request.uri().path().to_owned();
    let start = SystemTime::now();
    let response = next.run(request).await;
    // Who does not record its own spans wants none of ours.
    if caller.is_some_and(|caller| !caller.sampled) || !is_known(response.status()) {
        return response;
    }
    let named = target(&path).or_else(|| made(&response));
    if let Some(Target { id, verb }) = named {
        let asked = Asked {
            method: &method,
            route: route.as_str(),
            verb: &verb,
            caller,
            start,
        };
        sink.tell(vec![span(&asked, id, &response)]);
    }
    response
}

/// The sandbox is there and is the caller's. Nobody else adds to its trace.
fn is_known(status: StatusCode) -> bool {
    !matches!(
        status,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND
    )
}

/// The sandbox that a path names.
fn target(path: &str) -> Option<Target<SandboxId>> {
    let rest = path.strip_prefix(SANDBOXES)?.strip_prefix('/')?;
    let segment = rest.split_once('/').map_or(rest, |(first, _)| first);
    segment.parse().ok()
}

/// The sandbox that was made for this answer.
fn made(response: &Response) -> Option<Target<SandboxId>> {
    let location = response.headers().get(header::LOCATION)?;
    target(location.to_str().ok()?)
}

fn span(asked: &Asked<'_>, id: SandboxId, response: &Response) -> Span {
    let root = root_of(id.bits());
    let (trace_id, parent) = match asked.caller {
        Some(caller) => (caller.trace_id, Parent::Caller(caller.span_id)),
        None => (id.bits(), Parent::Here(root)),
    };
    let Asked { method, route, .. } = asked;
    let verb = match asked.verb {
        "" => String::new(),
        verb => format!(":{verb}"),
    };
    let status = response.status();
    let mut attributes = vec![
        ("firelane.sandbox.id", id.to_string().as_str().into()),
        ("http.request.method", method.as_str().into()),
        ("http.route", format!("{route}{verb}").as_str().into()),
        (
            "http.response.status_code",
            i32::from(status.as_u16()).into(),
        ),
    ];
    let problem = response.extensions().get::<Problem>();
    let code = problem.map(|problem| problem.code.name());
    attributes.extend(code.map(|code| ("error.type", code.into())));
    Span {
        trace_id,
        id: fresh_id(),
        parent: Some(parent),
        name: format!("{method} {route}{verb}").into(),
        start: asked.start,
        end: SystemTime::now().max(asked.start),
        attributes,
        // What the caller did wrong is no failure of ours.
        error: code.filter(|_| status.is_server_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sandbox_of_a_path_is_found() {
        let id = SandboxId::from_bits(0x0192_7000_0000_7000_8000_0000_0000_0001);
        let check = |path: String, verb: &str| {
            let target = target(&path);
            let found = target.map(|target| (target.id, target.verb));
            assert_eq!(found, Some((id, verb.to_owned())), "{path}");
        };
        check(format!("/v1/sandboxes/{id}"), "");
        check(format!("/v1/sandboxes/{id}:pause"), "pause");
        check(format!("/v1/sandboxes/{id}/execs/what"), "");
        for path in [
            "/v1/sandboxes",
            "/v1/sandboxes/",
            "/v1/sandboxes/no",
            "/v1/runs",
        ] {
            assert!(target(path).is_none(), "{path}");
        }
    }
}
