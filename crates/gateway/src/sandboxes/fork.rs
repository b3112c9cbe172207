//! `POST /v1/sandboxes/{id}:fork`: sandboxes that begin as another one is now.

use std::time::Duration;

use axum::response::Json;
use firelane_model::id::SandboxId;
use firelane_wire::bus::{ForkSandbox, SLOW_CALL_S};
use firelane_wire::problem::Problem;
use firelane_wire::sandbox::{ForkRequest, Forks};

use crate::Gateway;
use crate::auth::Who;
use crate::failure::Answer;

/// Makes sandboxes that begin as this one is now
///
/// Each stands for itself: in the place of one that could not be made is the problem.
#[utoipa::path(post, path = "/v1/sandboxes/{id}:fork", operation_id = "sandbox_fork", tag = "sandboxes",
    request_body = ForkRequest,
    params(("id" = String, Path, pattern = "^sbx-[0-9a-f]{32}$", description = "The sandbox"),
           ("Idempotency-Key" = Option<String>, Header,
            description = "The same key of the same tenant gets the same answer, for a day")),
    responses((status = 200, description = "What became of each", body = Forks),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json")))]
pub(super) async fn fork(
    gateway: &Gateway,
    who: Who,
    id: SandboxId,
    request: ForkRequest,
) -> Answer<Json<Forks>> {
    request.check()?;
    let call = ForkSandbox {
        caller: who.caller,
        id,
        count: request.count,
    };
    let longer = Duration::from_secs(SLOW_CALL_S);
    Ok(Json(gateway.coordinator.ask_for(&call, longer).await?))
}
