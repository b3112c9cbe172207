//! `Idempotency-Key`: a request that is repeated is carried out once, and gets the same answer.
//!
//! ```text
//!   reserve ─┬─ new ─▶ handler ─┬─ an answer ─▶ kept, and given
//!            │                  └─ 409, 429, 5xx, or nobody waits for it ─▶ the key is given back
//!            ├─ done ─▶ the kept answer, with Idempotent-Replayed
//!            ├─ in progress ─▶ 409, Retry-After
//!            └─ of another request ─▶ 422
//! ```
//!
//! The coordinator keeps keys and answers. `POST /v1/runs` is not here: there the key names the run
//! itself, which goes on whoever waits for it.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use firelane_store::bus::Calls;
use firelane_wire::bus::{KeptAnswer, ReserveAnswer, Reserved, SettleAnswer};
use firelane_wire::key::Scope;
use firelane_wire::problem::{Code, Problem};

use crate::Gateway;
use crate::auth::Who;
use crate::body::{MAX_BODY_BYTES, read};
use crate::failure::{Answer, Failure};
use crate::whole::whole;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
/// Longest idempotency key, in bytes.
const MAX_KEY_BYTES: usize = 255;
/// Largest body of an answer that is kept: what a message of the Bus carries beside the rest.
const MAX_KEPT_BYTES: usize = 900 << 10;
/// Headers that are told again.
const KEPT: [HeaderName; 3] = [header::CONTENT_TYPE, header::LOCATION, PREFERENCE_APPLIED];
/// Type of the body of a problem.
const PROBLEM: &str = "application/problem+json";
/// When to ask again for the answer to a request that is being carried out.
const IN_PROGRESS: Duration = Duration::from_secs(1);

/// In an answer: what whoever repeats the request is told instead, since this cannot be kept.
#[derive(Clone)]
pub(crate) struct KeepInstead(pub(crate) Problem);

/// In an answer: the request can be carried out twice without doing anything twice, so an answer that
/// is too large is not kept.
#[derive(Clone)]
pub(crate) struct Repeatable;

/// The key of a request.
pub(crate) fn key(headers: &HeaderMap) -> Result<Option<String>, Failure> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else {
        return Ok(None);
    };
    match value.to_str() {
        Ok(key) if !key.is_empty() && key.len() <= MAX_KEY_BYTES => Ok(Some(key.into())),
        _ => {
            let cause = format!("Idempotency-Key is not 1 to {MAX_KEY_BYTES} printable characters");
            Err(Failure::new(Code::Invalid, cause))
        }
    }
}

/// Says that the answer is that of an earlier request.
pub(crate) fn replayed(response: &mut Response) {
    let yes = HeaderValue::from_static("true");
    response.headers_mut().insert(IDEMPOTENT_REPLAYED, yes);
}

/// Carries out a request with a key once.
pub(crate) async fn layer(
    State(gateway): State<Arc<Gateway>>,
    request: Request,
    next: Next,
) -> Response {
    let scope = scope(request.method(), request.uri().path());
    let answer = match (scope, key(request.headers())) {
        (Some(scope), Ok(Some(key))) => once(&gateway, scope, key, request, next).await,
        (Some(_), Err(failure)) => Err(failure),
        _ => Ok(next.run(request).await),
    };
    answer.unwrap_or_else(IntoResponse::into_response)
}

/// What a request needs that can be repeated here. An answer is told only to those who could have
/// asked for it.
fn scope(method: &Method, path: &str) -> Option<Scope> {
    if method != Method::POST {
        return None;
    }
    match path.strip_prefix("/v1/")? {
        "keys" => Some(Scope::Admin),
        "templates" => Some(Scope::Template),
        "runs:batch" => Some(Scope::Run),
        path => path.starts_with("sandboxes").then_some(Scope::Sandbox),
    }
}

async fn once(
    gateway: &Arc<Gateway>,
    scope: Scope,
    key: String,
    request: Request,
    next: Next,
) -> Answer<Response> {
    let (mut parts, body) = request.into_parts();
    let who = Who::from_request_parts(&mut parts, gateway).await?;
    who.require(scope)?;
    let bytes = read(body, MAX_BODY_BYTES).await?;
    let target = parts
        .uri
        .path_and_query()
        .map_or("", |target| target.as_str());
    let call = ReserveAnswer {
        tenant: who.caller.tenant.clone(),
        key,
        fingerprint: fingerprint([parts.method.as_str().as_bytes(), target.as_bytes(), &bytes]),
    };
    // The handler asks who it is too, and one request is counted once.
    parts.extensions.insert(who);
    let coordinator = gateway.coordinator.clone();
    let known = whole(async move { reserve(coordinator, &call).await }).await?;
    let reservation = match known {
        Known::New(reservation) => reservation,
        Known::InProgress => {
            let cause = "a request with this idempotency key is being carried out";
            let problem = Problem::new(Code::Conflict, cause).retry_after(IN_PROGRESS);
            return Err(problem.into());
        }
        Known::Done(kept) => return Ok(replay(kept)),
        Known::Other => {
            let cause = "the idempotency key was used for another request";
            return Err(Failure::new(Code::KeyReused, cause));
        }
    };
    let response = next
        .run(Request::from_parts(parts, Body::from(bytes)))
        .await;
    let (response, kept) = keep(response).await;
    if let Some(kept) = kept {
        reservation.settle(kept).await;
    }
    Ok(response)
}

/// BLAKE3 of the parts, each with its length before it.
fn fingerprint(parts: [&[u8]; 3]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// What is known of a key; a new one is given back when it is dropped.
enum Known {
    New(Reservation),
    InProgress,
    Done(KeptAnswer),
    Other,
}

async fn reserve(coordinator: Calls, call: &ReserveAnswer) -> Result<Known, Problem> {
    Ok(match coordinator.ask(call).await? {
        Reserved::New(number) => Known::New(Reservation {
            coordinator,
            number: Some(number),
        }),
        Reserved::InProgress => Known::InProgress,
        Reserved::Done(kept) => Known::Done(kept),
        Reserved::Other => Known::Other,
    })
}

/// A key that is ours until its request is answered.
struct Reservation {
    coordinator: Calls,
    number: Option<i64>,
}

impl Reservation {
    /// Keeps the answer, so that the next such request gets it.
    async fn settle(mut self, answer: KeptAnswer) {
        let Some(reservation) = self.number.take() else {
            return;
        };
        let coordinator = self.coordinator.clone();
        let settled = whole(async move {
            let answer = Some(answer);
            let call = SettleAnswer {
                reservation,
                answer,
            };
            coordinator.ask(&call).await
        });
        if let Err(problem) = settled.await {
            tracing::warn!(%problem, "the answer to a request with an idempotency key is not kept");
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let Some(reservation) = self.number.take() else {
            return;
        };
        let coordinator = self.coordinator.clone();
        tokio::spawn(async move {
            let answer = None;
            let call = SettleAnswer {
                reservation,
                answer,
            };
            if let Err(problem) = coordinator.ask(&call).await {
                tracing::warn!(%problem, "an idempotency key was not given back");
            }
        });
    }
}

/// An answer, and what of it is kept, if it is.
async fn keep(mut response: Response) -> (Response, Option<KeptAnswer>) {
    let status = response.status();
    let passing = [StatusCode::CONFLICT, StatusCode::TOO_MANY_REQUESTS].contains(&status);
    if passing || status.is_server_error() {
        return (response, None);
    }
    if let Some(KeepInstead(problem)) = response.extensions_mut().remove() {
        return (response, Some(kept_problem(&problem)));
    }
    if let Some(problem) = response.extensions().get::<Problem>() {
        let kept = kept_problem(problem);
        return (response, Some(kept));
    }
    let repeatable = response.extensions().get::<Repeatable>().is_some();
    let (head, body) = response.into_parts();
    let bytes = match axum::body::to_bytes(body, usize::MAX).await {
        Ok(bytes) => bytes,
        Err(error) => {
            let failure = Failure::new(Code::Internal, error.to_string());
            return (failure.into_response(), None);
        }
    };
    let kept = match bytes.len() <= MAX_KEPT_BYTES {
        true => Some(KeptAnswer {
            status: status.as_u16(),
            headers: KEPT
                .iter()
                .filter_map(|name| told(&head.headers, name))
                .collect(),
            body: bytes.to_vec(),
        }),
        false => (!repeatable).then(|| kept_problem(&too_large(&head.headers))),
    };
    (Response::from_parts(head, Body::from(bytes)), kept)
}

fn told(headers: &HeaderMap, name: &HeaderName) -> Option<(String, String)> {
    let value = headers.get(name)?.to_str().ok()?;
    Some((name.to_string(), value.into()))
}

fn too_large(headers: &HeaderMap) -> Problem {
    let cause =
        format!("this was done, and its answer is over {MAX_KEPT_BYTES} bytes: it is told once");
    let problem = Problem::new(Code::TooLarge, cause);
    match told(headers, &header::LOCATION) {
        Some((_, location)) => problem.with_remedy(format!("look at what it made: GET {location}")),
        None => problem,
    }
}

fn kept_problem(problem: &Problem) -> KeptAnswer {
    KeptAnswer {
        status: problem.status(),
        headers: vec![(header::CONTENT_TYPE.to_string(), PROBLEM.into())],
        // Strings and numbers: this cannot fail.
        body: serde_json::to_vec(problem).unwrap_or_default(),
    }
}

/// The answer again. A problem gets the id of the request that is told it.
fn replay(kept: KeptAnswer) -> Response {
    let is_problem = kept.headers.iter().any(|(_, value)| value == PROBLEM);
    let problem = is_problem.then(|| serde_json::from_slice::<Problem>(&kept.body));
    let mut response = match problem {
        Some(Ok(problem)) => Failure::from(problem).into_response(),
        Some(Err(error)) => Failure::new(Code::Internal, error.to_string()).into_response(),
        None => again(kept),
    };
    replayed(&mut response);
    response
}

fn again(kept: KeptAnswer) -> Response {
    let status = StatusCode::from_u16(kept.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, kept.body).into_response();
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_TYPE);
    for (name, value) in kept.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            headers.insert(name, value);
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_fingerprint_do_not_run_together() {
        let one = fingerprint([b"POST", b"/a", b"b"]);
        assert_eq!(one, fingerprint([b"POST", b"/a", b"b"]));
        assert_ne!(one, fingerprint([b"POST", b"/ab", b""]));
        assert_ne!(one, fingerprint([b"POST", b"/", b"ab"]));
    }

    #[test]
    fn a_path_needs_what_its_handler_needs() {
        let check = |method: Method, path: &str, expected| {
            assert_eq!(scope(&method, path), expected, "{method} {path}");
        };
        check(Method::POST, "/v1/keys", Some(Scope::Admin));
        check(Method::POST, "/v1/runs:batch", Some(Scope::Run));
        check(Method::POST, "/v1/sandboxes", Some(Scope::Sandbox));
        check(Method::POST, "/v1/sandboxes/a:fork", Some(Scope::Sandbox));
        check(Method::POST, "/v1/runs", None);
        check(Method::GET, "/v1/sandboxes", None);
        check(Method::PUT, "/v1/sandboxes/a/files/b", None);
        check(Method::POST, "/metrics", None);
    }

    /// What is kept of an answer with a body of so many bytes.
    async fn kept(bytes: usize, change: impl FnOnce(&mut Response)) -> Option<(u16, usize)> {
        let mut response = vec![b'a'; bytes].into_response();
        change(&mut response);
        let (given, kept) = keep(response).await;
        let body = axum::body::to_bytes(given.into_body(), usize::MAX).await;
        assert_eq!(body.expect("it is whole").len(), bytes, "it is given whole");
        kept.map(|kept| (kept.status, kept.body.len()))
    }

    #[tokio::test]
    async fn an_answer_is_kept_if_it_is_one_and_fits() {
        let is = |status: u16| {
            move |response: &mut Response| {
                *response.status_mut() = StatusCode::from_u16(status).expect("it is one");
            }
        };
        assert_eq!(kept(7, is(200)).await, Some((200, 7)));
        assert_eq!(kept(7, is(404)).await, Some((404, 7)));
        for passing in [409, 429, 500, 503] {
            assert_eq!(kept(7, is(passing)).await, None, "{passing}");
        }
        let most = MAX_KEPT_BYTES;
        assert_eq!(kept(most, is(200)).await, Some((200, most)));
        let over = kept(most + 1, is(200)).await.expect("it is done once");
        assert_eq!(over.0, 413);
        // Asked for again, it does nothing twice: that is better than an answer that is none.
        let repeatable = |response: &mut Response| {
            response.extensions_mut().insert(Repeatable);
        };
        assert_eq!(kept(most + 1, repeatable).await, None);
        assert_eq!(kept(most, repeatable).await, Some((200, most)));
    }
}
