//! `POST /v1/sandboxes`: makes a sandbox.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use firelane_wire::bus::{CreateSandbox, SLOW_CALL_S};
use firelane_wire::key::Scope;
use firelane_wire::problem::Problem;
use firelane_wire::sandbox::{NewSandbox, Sandbox};

use crate::Gateway;
use crate::auth::Who;
use crate::body::Json;
use crate::created::created;
use crate::failure::Answer;

/// Makes a sandbox
///
/// Answers when it can be used. A caller that leaves before that leaves the sandbox to its time: it
/// is in the list.
#[utoipa::path(post, path = "/v1/sandboxes", operation_id = "sandbox_create", tag = "sandboxes",
    request_body = NewSandbox,
    params(("Idempotency-Key" = Option<String>, Header,
            description = "The same key of the same tenant gets the same answer, for a day")),
    responses((status = 201, description = "It can be used", body = Sandbox),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json")))]
pub(crate) async fn create(
    State(gateway): State<Arc<Gateway>>,
    who: Who,
    Json(request): Json<NewSandbox>,
) -> Answer<Response> {
    who.require(Scope::Sandbox)?;
    request.check()?;
    let call = CreateSandbox {
        caller: who.caller,
        request,
    };
    let longer = Duration::from_secs(SLOW_CALL_S);
    let sandbox = gateway.coordinator.ask_for(&call, longer).await?;
    Ok(created(&format!("/v1/sandboxes/{}", sandbox.id), &sandbox))
}
