//! `GET /v1/runs`: the tenant's runs, newest first.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Json;
use firelane_wire::bus::ListRuns;
use firelane_wire::key::Scope;
use firelane_wire::page::{Page, PageQuery};
use firelane_wire::problem::Problem;
use firelane_wire::run::{Run, RunsQuery};

use crate::Gateway;
use crate::auth::Who;
use crate::body::Query;
use crate::failure::Answer;

/// The tenant's runs, newest first, without what they wrote
#[utoipa::path(get, path = "/v1/runs", operation_id = "run_list", tag = "runs", params(RunsQuery),
    responses((status = 200, description = "A page of them", body = Page<Run>),
              (status = "default", description = "What is wrong", body = Problem,
               content_type = "application/problem+json")))]
pub(crate) async fn list(
    State(gateway): State<Arc<Gateway>>,
    who: Who,
    Query(query): Query<RunsQuery>,
) -> Answer<Json<Page<Run>>> {
    who.require(Scope::Run)?;
    let call = ListRuns {
        tenant: who.caller.tenant,
        state: query.state,
        page: PageQuery {
            limit: query.limit,
            cursor: query.cursor,
        },
    };
    Ok(Json(gateway.coordinator.ask(&call).await?))
}
