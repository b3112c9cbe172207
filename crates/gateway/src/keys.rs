//! `/v1/keys`: API keys, for admins.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use firelane_model::id::KeyId;
use firelane_wire::bus::{ListKeys, MakeKey, RevokeKey};
use firelane_wire::key::{Key, KeyMade, NewKey, Scope};
use firelane_wire::problem::{Code, Problem};

use crate::Gateway;
use crate::auth::Who;
use crate::body::Json;
use crate::failure::Answer;
use crate::idempotency::KeepInstead;
use crate::path::Id;

/// Makes an API key
///
/// Its token is in this answer and nowhere else.
#[utoipa::path(post, path = "/v1/keys", operation_id = "key_create", tag = "keys", request_body = NewKey,
    params(("Idempotency-Key" = Option<String>, Header,
            description = "The same key of the same tenant makes one API key, for a day; its token is told once")),
    responses((status = 201, description = "The key", body = KeyMade),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json")))]
pub(crate) async fn make(
    State(gateway): State<Arc<Gateway>>,
    who: Who,
    Json(key): Json<NewKey>,
) -> Answer<Response> {
    who.require(Scope::Admin)?;
    let actor = who.actor;
    let made = gateway.coordinator.ask(&MakeKey { actor, key }).await?;
    let cause = format!(
        "the key {} was made by the first such request, and its token was in that answer only",
        made.key.id
    );
    let known = Problem::new(Code::Conflict, cause);
    let known = known.with_remedy("revoke it and make another, with another idempotency key");
    let mut response = (StatusCode::CREATED, axum::Json(made)).into_response();
    // Nothing has the token but this answer, whatever is kept of it.
    response.extensions_mut().insert(KeepInstead(known));
    Ok(response)
}

/// All API keys, oldest first, without their secrets
#[utoipa::path(get, path = "/v1/keys", operation_id = "key_list", tag = "keys",
    responses((status = 200, description = "The keys", body = Vec<Key>),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json")))]
pub(crate) async fn list(
    State(gateway): State<Arc<Gateway>>,
    who: Who,
) -> Answer<axum::Json<Vec<Key>>> {
    who.require(Scope::Admin)?;
    Ok(axum::Json(gateway.coordinator.ask(&ListKeys {}).await?))
}

/// Revokes an API key, from now on
#[utoipa::path(delete, path = "/v1/keys/{id}", operation_id = "key_revoke", tag = "keys",
    params(("id" = String, Path, pattern = "^key-[0-9a-f]{32}$", description = "The key")),
    responses((status = 200, description = "The key", body = Key),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json")))]
pub(crate) async fn revoke(
    State(gateway): State<Arc<Gateway>>,
    who: Who,
    Id(id): Id<KeyId>,
) -> Answer<axum::Json<Key>> {
    who.require(Scope::Admin)?;
    let actor = who.actor;
    let key = gateway.coordinator.ask(&RevokeKey { actor, id }).await?;
    Ok(axum::Json(key))
}
