//! `POST /v1/runs:batch`: asks for many runs, and waits for all or for none.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use firelane_model::id::RunId;
use firelane_wire::bus::{Caller, GetRun, SubmitRun};
use firelane_wire::key::Scope;
use firelane_wire::problem::{Code, Problem};
use firelane_wire::run::{Batch, BatchItem, BatchRequest, Outcome, Run};

use super::outcome;
use super::post::Leaving;
use crate::Gateway;
use crate::auth::Who;
use crate::body::Json;
use crate::failure::Answer;
use crate::idempotency::{self, Repeatable};
use crate::prefer;
use crate::trace::traceparent;

/// Most bytes of output and files in one answer: what one gateway holds for one caller. What is over
/// is fetched run by run.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// Runs many pieces of code, each in a fresh microVM
///
/// Every run is checked before one is queued: if one is wrong, none is. After that each stands for
/// itself, and one that finds the queue full or its key at a limit has a problem in its place. Answers
/// when all have ended; with `Prefer: respond-async` at once. A caller that leaves before that cancels
/// what is left, as with a single run. A batch is one request of the key's rate.
#[utoipa::path(post, path = "/v1/runs:batch", operation_id = "run_batch", tag = "runs",
    request_body = BatchRequest,
    params(
        ("Prefer" = Option<String>, Header, description = "`respond-async` (RFC 7240)"),
        ("Idempotency-Key" = Option<String>, Header,
         description = "The same key of the same tenant means the same runs, and the same answer, for a day"),
        ("traceparent" = Option<String>, Header,
         description = "The caller's span that the runs become parts of (W3C Trace Context)"),
    ),
    responses(
        (status = 200, description = "Those that were taken have ended", body = Batch),
        (status = 202, description = "Those that were taken are queued", body = Batch),
        (status = "default", description = "What is wrong; no run was queued", body = Problem,
         content_type = "application/problem+json"),
    ))]
pub(crate) async fn batch(
    State(gateway): State<Arc<Gateway>>,
    who: Who,
    headers: HeaderMap,
    Json(request): Json<BatchRequest>,
) -> Answer<Response> {
    who.require(Scope::Run)?;
    let key = idempotency::key(&headers)?;
    let respond_async = prefer::respond_async(&headers);
    request.check()?;
    let durable = respond_async || key.is_some();
    let traceparent = traceparent(&headers);
    let mut taken = Vec::new();
    for (number, request) in request.runs.into_iter().enumerate() {
        let submit = SubmitRun {
            caller: who.caller.clone(),
            request,
            durable,
            // No header has a line break: this is no key that a single run can have.
            idempotency_key: key.as_ref().map(|key| format!("{key}\n{number}")),
            traceparent,
        };
        let submitted = gateway.coordinator.ask(&submit).await;
        taken.push(submitted.map(|submitted| {
            let caller = (!durable).then(|| who.caller.clone());
            let leaving = Leaving::new(&gateway, caller, submitted.id);
            (submitted.id, leaving)
        }));
    }
    let mut room = MAX_ANSWER_BYTES;
    let mut runs = Vec::new();
    for taken in taken {
        runs.push(match taken {
            Err(problem) => refused(&gateway, problem),
            Ok((id, _)) if respond_async => now(&gateway, &who.caller, id).await,
            Ok((id, mut leaving)) => {
                let ended = outcome::wait(&gateway, &who.caller.tenant, id).await;
                leaving.stayed();
                ended.map_or_else(
                    |problem| refused(&gateway, problem),
                    |run| fit(run, &mut room),
                )
            }
        });
    }
    let mut response = axum::Json(Batch { runs }).into_response();
    // The same key means the same runs, whether this answer is kept or not.
    response.extensions_mut().insert(Repeatable);
    if respond_async {
        *response.status_mut() = StatusCode::ACCEPTED;
        prefer::apply(&mut response);
    }
    Ok(response)
}

async fn now(gateway: &Gateway, caller: &Caller, id: RunId) -> BatchItem {
    let tenant = caller.tenant.clone();
    match gateway.coordinator.ask(&GetRun { tenant, id }).await {
        Ok(run) => BatchItem {
            run: Some(run),
            problem: None,
        },
        Err(problem) => refused(gateway, problem),
    }
}

fn refused(gateway: &Gateway, problem: Problem) -> BatchItem {
    gateway.metrics.refused(&problem);
    BatchItem {
        run: None,
        problem: Some(problem),
    }
}

/// A run with its outcome, if there is room for that.
fn fit(mut run: Run, room: &mut usize) -> BatchItem {
    let bytes = run.outcome.as_ref().map_or(0, bytes);
    let problem = if let Some(left) = room.checked_sub(bytes) {
        *room = left;
        None
    } else {
        run.outcome = None;
        let cause = format!("the batch has over {MAX_ANSWER_BYTES} bytes of output and files");
        let problem = Problem::new(Code::TooLarge, cause);
        Some(problem.with_remedy(format!("fetch it: GET /v1/runs/{}", run.id)))
    };
    BatchItem {
        run: Some(run),
        problem,
    }
}

fn bytes(outcome: &Outcome) -> usize {
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let files = outcome.files.iter().map(|file| text(&file.base64));
    outcome.stdout.len()
        + outcome.stderr.len()
        + text(&outcome.stdout_base64)
        + text(&outcome.stderr_base64)
        + files.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_left_out_and_told() {
        let json = serde_json::json!({
            "id": RunId::from_bits(7).to_string(), "state": "done", "lang": "python", "labels": {},
            "template": "default", "created_at": "2026-01-01T00:00:00Z",
        });
        let run: Run = serde_json::from_value(json).expect("it is a run");
        let run = Run {
            outcome: Some(Outcome {
                stdout: "12345".into(),
                ..Outcome::default()
            }),
            ..run
        };
        let mut room = 9;
        let first = fit(run.clone(), &mut room);
        assert_eq!((first.run.as_ref(), first.problem), (Some(&run), None));
        let second = fit(run, &mut room);
        assert_eq!(
            second.problem.map(|problem| problem.code),
            Some(Code::TooLarge)
        );
        assert_eq!(second.run.and_then(|run| run.outcome), None);
        assert_eq!(room, 4);
    }
}
