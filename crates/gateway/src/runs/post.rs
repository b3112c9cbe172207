//! `POST /v1/runs`: asks for a run, and waits for it or not.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use firelane_model::id::RunId;
use firelane_wire::bus::{Caller, CancelRun, GetRun, SubmitRun};
use firelane_wire::key::Scope;
use firelane_wire::problem::Problem;
use firelane_wire::run::{Run, RunRequest};

use super::outcome;
use crate::Gateway;
use crate::auth::Who;
use crate::body::Json;
use crate::failure::{Answer, Failure};
use crate::idempotency;
use crate::prefer;
use crate::trace::{RequestId, Timings, traceparent};

/// Runs code in a fresh microVM
///
/// Answers with the outcome when the program has ended. With `Prefer: respond-async` it answers at
/// once with the run's place in the queue; the run is on disk then and survives a restart. A caller
/// that leaves before the outcome cancels the run, unless it is asynchronous or has an idempotency
/// key.
#[utoipa::path(post, path = "/v1/runs", operation_id = "run_create", tag = "runs", request_body = RunRequest,
    params(
        ("Prefer" = Option<String>, Header, description = "`respond-async` (RFC 7240)"),
        ("Idempotency-Key" = Option<String>, Header,
         description = "The same key of the same tenant means the same run, for a day"),
        ("traceparent" = Option<String>, Header,
         description = "The caller's span that the run becomes a part of (W3C Trace Context)"),
    ),
    responses(
        (status = 200, description = "The program has ended", body = Run),
        (status = 202, description = "The run is queued", body = Run),
        (status = "default", description = "What is wrong", body = Problem,
         content_type = "application/problem+json"),
    ))]
pub(crate) async fn post(
    State(gateway): State<Arc<Gateway>>,
    who: Who,
    Extension(request_id): Extension<RequestId>,
    headers: HeaderMap,
    Json(request): Json<RunRequest>,
) -> Answer<Response> {
    who.require(Scope::Run)?;
    let idempotency_key = idempotency::key(&headers)?;
    let respond_async = prefer::respond_async(&headers);
    let submit = SubmitRun {
        caller: who.caller.clone(),
        request,
        durable: respond_async || idempotency_key.is_some(),
        idempotency_key,
        traceparent: traceparent(&headers),
    };
    let submitted = gateway.coordinator.ask(&submit).await?;
    tracing::debug!(request = request_id.0, run = %submitted.id, "a run is queued");
    let tenant = who.caller.tenant.clone();
    if respond_async {
        let get = GetRun {
            tenant,
            id: submitted.id,
        };
        let run = gateway.coordinator.ask(&get).await?;
        let response = prefer::accepted(&format!("/v1/runs/{}", run.id), &run);
        return Ok(told(response, submitted.replayed));
    }
    let mut leaving = Leaving::new(
        &gateway,
        (!submit.durable).then_some(who.caller),
        submitted.id,
    );
    let run = outcome::wait(&gateway, &tenant, submitted.id).await?;
    leaving.stayed();
    Ok(told(finished(run), submitted.replayed))
}

/// Says so if the run was there before.
fn told(mut response: Response, replayed: bool) -> Response {
    if replayed {
        idempotency::replayed(&mut response);
    }
    response
}

/// A run that is over: with its outcome, or the problem that kept it from having one.
fn finished(run: Run) -> Response {
    if let Some(problem) = run.problem {
        return Failure::from(problem).into_response();
    }
    let timings = timings(&run);
    let mut response = axum::Json(run).into_response();
    response.extensions_mut().insert(timings);
    response
}

/// The steps of a run, each with its own time.
fn timings(run: &Run) -> Timings {
    let Some(outcome) = &run.outcome else {
        return Timings::default();
    };
    let phases = &outcome.ran.phases_ms;
    let at = |name: &str| phases.get(name).copied();
    let mut timings = Vec::new();
    let ready = at("renewed").or_else(|| at("connected"));
    if let Some(ready) = ready {
        timings.push((outcome.ran.origin.name(), ready));
    }
    if let (Some(ready), Some(result)) = (ready, at("result")) {
        timings.push(("exec", result - ready));
    }
    Timings(timings)
}

/// Cancels a run whose caller leaves while it waits for the outcome.
pub(super) struct Leaving {
    gateway: Arc<Gateway>,
    run: Option<(Caller, RunId)>,
}

impl Leaving {
    /// Watches over a run of this caller; over none, if it goes on without one.
    pub(super) fn new(gateway: &Arc<Gateway>, caller: Option<Caller>, id: RunId) -> Leaving {
        Leaving {
            gateway: Arc::clone(gateway),
            run: caller.map(|caller| (caller, id)),
        }
    }

    /// The caller has waited for the outcome.
    pub(super) fn stayed(&mut self) {
        self.run = None;
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        let Some((caller, id)) = self.run.take() else {
            return;
        };
        let coordinator = self.gateway.coordinator.clone();
        tokio::spawn(async move {
            if let Err(problem) = coordinator.ask(&CancelRun { caller, id }).await {
                tracing::warn!(run = %id, %problem, "a run that nobody waits for goes on");
            }
        });
    }
}
