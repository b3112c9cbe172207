//! `POST /v1/sandboxes/{id}:verb`. The router takes a parameter only up to the next slash, so the
//! verb is split off here; the API's description has a path for each.

use std::sync::Arc;

use axum::extract::{FromRequest, Request, State};
use axum::response::{IntoResponse, Response};
use firelane_model::id::SandboxId;
use firelane_wire::key::Scope;

use super::{change, fork};
use crate::Gateway;
use crate::auth::Who;
use crate::body::Json;
use crate::failure::Answer;
use crate::path::{Id, Target};

/// What there is, for those who ask for something else.
const VERBS: &str = ":pause, :resume, :fork, :rollback";

pub(crate) async fn post(
    State(gateway): State<Arc<Gateway>>,
    who: Who,
    Id(target): Id<Target<SandboxId>>,
    request: Request,
) -> Answer<Response> {
    who.require(Scope::Sandbox)?;
    let id = target.id;
    Ok(match target.verb.as_str() {
        "pause" => change::pause(&gateway, who, id).await?.into_response(),
        "resume" => change::resume(&gateway, who, id).await?.into_response(),
        "fork" => {
            let Json(request) = Json::from_request(request, &()).await?;
            fork::fork(&gateway, who, id, request)
                .await?
                .into_response()
        }
        "rollback" => {
            let Json(request) = Json::from_request(request, &()).await?;
            let changed = change::roll_back(&gateway, who, id, request).await?;
            changed.into_response()
        }
        _ => return Err(target.unknown(VERBS)),
    })
}
