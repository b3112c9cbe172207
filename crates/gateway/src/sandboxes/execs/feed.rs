//! What is sent to a program: `POST /v1/sandboxes/{id}/execs/{exec}:signal`, `:stdin`, `:resize`, and
//! `DELETE` for the signal that ends it.

use std::sync::Arc;

use axum::extract::{FromRequest, Request, State};
use axum::http::StatusCode;
use axum::response::Json;
use firelane_model::id::{ExecId, SandboxId};
use firelane_wire::bus::{FeedExec, GetExec};
use firelane_wire::check;
use firelane_wire::event::Input;
use firelane_wire::exec::{Exec, SignalRequest, StdinRequest};
use firelane_wire::key::Scope;
use firelane_wire::problem::{Code, Problem};
use firelane_wire::run::Pty;

use super::super::place::Place;
use crate::Gateway;
use crate::auth::Who;
use crate::body;
use crate::failure::Answer;
use crate::path::{Ids, Target};

/// What there is, for those who ask for something else.
const VERBS: &str = ":signal, :stdin, :resize";
/// The signal that nothing survives.
const KILL: u8 = 9;

/// One program, and where it is.
pub(crate) struct Program {
    place: Place,
    id: ExecId,
}

impl Program {
    async fn feed(&self, input: Input) -> Result<(), Problem> {
        let call = FeedExec {
            sandbox: self.place.sandbox.clone(),
            id: self.id,
            input,
        };
        self.place.agent.ask(&call).await
    }
}

/// `POST` with any of the verbs.
pub(crate) async fn post(
    State(gateway): State<Arc<Gateway>>,
    who: Who,
    Ids(sandbox, target): Ids<SandboxId, Target<ExecId>>,
    request: Request,
) -> Answer<StatusCode> {
    who.require(Scope::Sandbox)?;
    let verb = target.verb.as_str();
    if !["signal", "stdin", "resize"].contains(&verb) {
        return Err(target.unknown(VERBS));
    }
    let place = gateway.place(who.caller.tenant, sandbox).await?;
    let program = Program {
        place,
        id: target.id,
    };
    match verb {
        "signal" => {
            let body::Json(request) = body::Json::from_request(request, &()).await?;
            signal(&program, request).await
        }
        "stdin" => {
            let body::Json(request) = body::Json::from_request(request, &()).await?;
            stdin(&program, request).await
        }
        _ => {
            let body::Json(request) = body::Json::from_request(request, &()).await?;
            resize(&program, request).await
        }
    }
}

/// Sends a signal to a program
#[utoipa::path(post, path = "/v1/sandboxes/{id}/execs/{exec}:signal", operation_id = "exec_signal",
    tag = "execs", request_body = SignalRequest,
    params(("id" = String, Path, pattern = "^sbx-[0-9a-f]{32}$", description = "The sandbox"),
           ("exec" = String, Path, pattern = "^exe-[0-9a-f]{32}$", description = "The program"),
           ("Idempotency-Key" = Option<String>, Header,
            description = "The same key of the same tenant gets the same answer, for a day")),
    responses((status = 204, description = "It was sent"),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json")))]
pub(crate) async fn signal(program: &Program, request: SignalRequest) -> Answer<StatusCode> {
    request.check()?;
    program.feed(Input::Signal(request.signal)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Writes to a program's standard input, and closes it
///
/// Answers when the program's side has taken the bytes. Only an `interactive` program has a standard
/// input that is open.
#[utoipa::path(post, path = "/v1/sandboxes/{id}/execs/{exec}:stdin", operation_id = "exec_stdin",
    tag = "execs", request_body = StdinRequest,
    params(("id" = String, Path, pattern = "^sbx-[0-9a-f]{32}$", description = "The sandbox"),
           ("exec" = String, Path, pattern = "^exe-[0-9a-f]{32}$", description = "The program"),
           ("Idempotency-Key" = Option<String>, Header,
            description = "The same key of the same tenant gets the same answer, for a day")),
    responses((status = 204, description = "It was written"),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json")))]
pub(crate) async fn stdin(program: &Program, request: StdinRequest) -> Answer<StatusCode> {
    let bytes = request.content.into_bytes();
    let bytes =
        bytes.map_err(|error| Problem::new(Code::Invalid, format!("content is {error}")))?;
    if !bytes.is_empty() {
        program.feed(Input::Stdin(bytes)).await?;
    }
    if request.end {
        program.feed(Input::End).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Gives a program's terminal another size
#[utoipa::path(post, path = "/v1/sandboxes/{id}/execs/{exec}:resize", operation_id = "exec_resize",
    tag = "execs", request_body = Pty,
    params(("id" = String, Path, pattern = "^sbx-[0-9a-f]{32}$", description = "The sandbox"),
           ("exec" = String, Path, pattern = "^exe-[0-9a-f]{32}$", description = "The program"),
           ("Idempotency-Key" = Option<String>, Header,
            description = "The same key of the same tenant gets the same answer, for a day")),
    responses((status = 204, description = "It has the size"),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json")))]
pub(crate) async fn resize(program: &Program, size: Pty) -> Answer<StatusCode> {
    check::terminal(&size)?;
    let Pty { rows, cols } = size;
    program.feed(Input::Resize { rows, cols }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Kills a program, with everything that it started
///
/// One that is over stays as it is.
#[utoipa::path(delete, path = "/v1/sandboxes/{id}/execs/{exec}", operation_id = "exec_kill", tag = "execs",
    params(("id" = String, Path, pattern = "^sbx-[0-9a-f]{32}$", description = "The sandbox"),
           ("exec" = String, Path, pattern = "^exe-[0-9a-f]{32}$", description = "The program")),
    responses((status = 200, description = "The program as it then is", body = Exec),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json")))]
pub(crate) async fn kill(
    State(gateway): State<Arc<Gateway>>,
    who: Who,
    Ids(sandbox, id): Ids<SandboxId, ExecId>,
) -> Answer<Json<Exec>> {
    who.require(Scope::Sandbox)?;
    let place = gateway.place(who.caller.tenant, sandbox).await?;
    let program = Program { place, id };
    match program.feed(Input::Signal(KILL)).await {
        // It has ended already.
        Err(problem) if problem.code == Code::Conflict => {}
        sent => sent?,
    }
    let Place { agent, sandbox } = program.place;
    Ok(Json(agent.ask(&GetExec { sandbox, id }).await?))
}
