//! What there is: queue, hosts, health.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Json;
use firelane_wire::bus::{ListHosts, LookQueue, LookUsage};
use firelane_wire::host::Host;
use firelane_wire::problem::{Code, Problem};
use firelane_wire::queue::Queue;
use firelane_wire::usage::{Usage, UsageQuery};
use serde::Serialize;
use utoipa::ToSchema;

use crate::Gateway;
use crate::auth::Who;
use crate::body::Query;
use crate::failure::Answer;

/// The service's word that it is there.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Health {
    /// Always `ok`: what is not gets no answer.
    status: &'static str,
    /// Version of Firelane.
    version: &'static str,
}

/// The queue, as the caller may see it
#[utoipa::path(get, path = "/v1/queue", operation_id = "queue_get", tag = "queue",
    responses((status = 200, description = "The queue", body = Queue),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json")))]
pub(crate) async fn queue(State(gateway): State<Arc<Gateway>>, who: Who) -> Answer<Json<Queue>> {
    let tenant = who.caller.tenant;
    Ok(Json(gateway.coordinator.ask(&LookQueue { tenant }).await?))
}

/// The hosts that are there, with their warm pools
#[utoipa::path(get, path = "/v1/hosts", operation_id = "host_list", tag = "hosts",
    responses((status = 200, description = "The hosts", body = Vec<Host>),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json")))]
pub(crate) async fn hosts(
    State(gateway): State<Arc<Gateway>>,
    _who: Who,
) -> Answer<Json<Vec<Host>>> {
    Ok(Json(gateway.coordinator.ask(&ListHosts {}).await?))
}

/// What the caller's tenant used, by day and API key
#[utoipa::path(get, path = "/v1/usage", operation_id = "usage_get", tag = "usage", params(UsageQuery),
    responses((status = 200, description = "What was used", body = Usage),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json")))]
pub(crate) async fn usage(
    State(gateway): State<Arc<Gateway>>,
    who: Who,
    Query(query): Query<UsageQuery>,
) -> Answer<Json<Usage>> {
    let tenant = who.caller.tenant;
    let usage = gateway
        .coordinator
        .ask(&LookUsage { tenant, query })
        .await?;
    Ok(Json(usage))
}

/// Whether the service is there
#[utoipa::path(get, path = "/healthz", operation_id = "health", tag = "health", security(()),
    responses((status = 200, description = "It is", body = Health)))]
pub(crate) async fn health() -> Json<Health> {
    Json(Health {
        status: "ok",
        version: env!("CARGO_PKG_VERSION"),
    })
}

/// Whether the service takes work: a host is there and it is not going down
#[utoipa::path(get, path = "/readyz", operation_id = "ready", tag = "health", security(()),
    responses((status = 200, description = "It does", body = Health),
              (status = "default", description = "It does not", body = Problem,
               content_type = "application/problem+json")))]
pub(crate) async fn ready(State(gateway): State<Arc<Gateway>>) -> Answer<Json<Health>> {
    if gateway.draining.is_cancelled() {
        return Err(Problem::new(Code::Unavailable, "the service is going down").into());
    }
    let hosts = gateway.coordinator.ask(&ListHosts {}).await?;
    if hosts.is_empty() {
        return Err(Problem::new(Code::Unavailable, "no host is there").into());
    }
    Ok(health().await)
}
