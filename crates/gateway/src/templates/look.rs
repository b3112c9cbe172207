//! `/v1/templates`: what is there, and away with it.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Json;
use firelane_store::bus::Calls;
use firelane_wire::bus::{GetTemplate, ListTemplates, PickHost, RemoveTemplate};
use firelane_wire::key::Scope;
use firelane_wire::problem::Problem;
use firelane_wire::template::{HostQuery, Template, check_name};

use crate::Gateway;
use crate::auth::Who;
use crate::body::Query;
use crate::failure::Answer;
use crate::path::Text;

impl Gateway {
    /// The agent whose templates are meant.
    async fn agent_of(&self, query: HostQuery) -> Result<Calls, Problem> {
        let pick = PickHost { host: query.host };
        let host = self.coordinator.ask(&pick).await?;
        Ok(self.agent(&host))
    }
}

/// The templates of a host, by name
#[utoipa::path(get, path = "/v1/templates", operation_id = "template_list", tag = "templates",
    params(HostQuery),
    responses((status = 200, description = "The templates", body = Vec<Template>),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json")))]
pub(crate) async fn list(
    State(gateway): State<Arc<Gateway>>,
    _who: Who,
    Query(query): Query<HostQuery>,
) -> Answer<Json<Vec<Template>>> {
    let agent = gateway.agent_of(query).await?;
    Ok(Json(agent.ask(&ListTemplates {}).await?))
}

/// A template
#[utoipa::path(get, path = "/v1/templates/{name}", operation_id = "template_get", tag = "templates",
    params(("name" = String, Path, description = "The template"), HostQuery),
    responses((status = 200, description = "The template", body = Template),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json")))]
pub(crate) async fn get(
    State(gateway): State<Arc<Gateway>>,
    _who: Who,
    Text(name): Text,
    Query(query): Query<HostQuery>,
) -> Answer<Json<Template>> {
    check_name(&name)?;
    let agent = gateway.agent_of(query).await?;
    Ok(Json(agent.ask(&GetTemplate { name }).await?))
}

/// Removes a template
///
/// What has begun with it goes on. A built-in one can be built again.
#[utoipa::path(delete, path = "/v1/templates/{name}", operation_id = "template_remove", tag = "templates",
    params(("name" = String, Path, description = "The template"), HostQuery),
    responses((status = 204, description = "It is gone"),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json")))]
pub(crate) async fn remove(
    State(gateway): State<Arc<Gateway>>,
    who: Who,
    Text(name): Text,
    Query(query): Query<HostQuery>,
) -> Answer<StatusCode> {
    who.require(Scope::Template)?;
    check_name(&name)?;
    let remove = RemoveTemplate {
        caller: who.caller,
        host: query.host,
        name,
    };
    gateway.coordinator.ask(&remove).await?;
    Ok(StatusCode::NO_CONTENT)
}
