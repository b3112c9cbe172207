//! `POST /v1/sandboxes/{id}/execs`: starts a program, and waits for its end or not.

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use firelane_model::id::{ExecId, SandboxId};
use firelane_wire::bus::{GetExec, StartExec};
use firelane_wire::event::{End, Input};
use firelane_wire::exec::{Exec, NewExec};
use firelane_wire::key::Scope;
use firelane_wire::problem::Problem;
use uuid::Uuid;

use super::super::place::Place;
use crate::Gateway;
use crate::auth::Who;
use crate::body::Json;
use crate::created::locate;
use crate::failure::{Answer, Failure};
use crate::follow::{Log, Told};
use crate::path::Id;
use crate::prefer;
use crate::whole::whole;

/// The signal that nothing survives.
const KILL: u8 = 9;

/// Runs a program in a sandbox
///
/// Answers when it has ended, with how it ended and what it wrote. With `Prefer: respond-async` it
/// answers at once. A caller that leaves before the end kills the program, unless it is asynchronous.
/// A sandbox that is paused wakes.
#[utoipa::path(post, path = "/v1/sandboxes/{id}/execs", operation_id = "exec_create", tag = "execs",
    request_body = NewExec,
    params(("id" = String, Path, pattern = "^sbx-[0-9a-f]{32}$", description = "The sandbox"),
           ("Prefer" = Option<String>, Header, description = "`respond-async` (RFC 7240)"),
           ("Idempotency-Key" = Option<String>, Header,
            description = "The same key of the same tenant gets the same answer, for a day")),
    responses((status = 200, description = "The program has ended", body = Exec),
              (status = 202, description = "The program runs", body = Exec),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json")))]
pub(crate) async fn start(
    State(gateway): State<Arc<Gateway>>,
    who: Who,
    Id(sandbox): Id<SandboxId>,
    headers: HeaderMap,
    Json(request): Json<NewExec>,
) -> Answer<Response> {
    who.require(Scope::Sandbox)?;
    request.check()?;
    let Place { agent, sandbox } = gateway.place(who.caller.tenant, sandbox).await?;
    let id = ExecId::from_bits(Uuid::now_v7().as_u128());
    let location = format!("/v1/sandboxes/{}/execs/{id}", sandbox.id);
    let call = StartExec {
        sandbox: sandbox.clone(),
        id,
        request,
    };
    if prefer::respond_async(&headers) {
        let exec = agent.ask(&call).await?;
        return Ok(prefer::accepted(&location, &exec));
    }
    let log = Log::Exec {
        agent: agent.clone(),
        sandbox: sandbox.clone(),
        id,
    };
    let (asked, watched) = (agent.clone(), log.clone());
    let mut leaving = whole(async move {
        asked.ask(&call).await?;
        Ok(Leaving(Some(watched)))
    })
    .await?;
    let told = Told::all(&log).await?;
    let exec = agent.ask(&GetExec { sandbox, id }).await?;
    leaving.stayed();
    Ok(finished(exec, told, &location))
}

/// A program that is over: with what it wrote, or the problem that kept it from its end.
fn finished(exec: Exec, mut told: Told, location: &str) -> Response {
    let end = told.end();
    let problem = match &end {
        Some(End::Failed(problem)) => Some(problem.clone()),
        _ => exec.problem.clone(),
    };
    if let Some(problem) = problem {
        return Failure::from(problem).into_response();
    }
    let ending = match end {
        Some(End::Done { ending, .. }) => Some(ending),
        _ => exec.ending.clone(),
    };
    let (output, _) = told.into_parts();
    let exec = Exec {
        running: false,
        ending,
        output: Some(output),
        ..exec
    };
    let mut response = axum::Json(exec).into_response();
    locate(&mut response, location);
    response
}

/// Kills a program whose caller leaves while it waits for the end.
struct Leaving(Option<Log>);

impl Leaving {
    /// The caller has waited for the end.
    fn stayed(&mut self) {
        self.0 = None;
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        let Some(log) = self.0.take() else {
            return;
        };
        tokio::spawn(async move {
            if let Err(problem) = log.feed(Input::Signal(KILL)).await {
                tracing::debug!(%problem, "a program that nobody waits for was not killed");
            }
        });
    }
}
