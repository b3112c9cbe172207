//! The API's description (OpenAPI 3.1), made from the types and handlers.

use axum::response::Json;
use utoipa::openapi::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi as _};

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Firelane",
        description = "Runs code that you did not write, each in a fresh microVM.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    servers((url = "/", description = "This service")),
    paths(
        crate::runs::post::post,
        crate::runs::list::list,
        crate::runs::get::get,
        crate::runs::cancel::cancel,
        crate::runs::events::events,
        crate::runs::ws::ws,
        crate::look::queue,
        crate::look::hosts,
        crate::look::usage,
        crate::keys::make,
        crate::keys::list,
        crate::keys::revoke,
        crate::look::health,
        crate::look::ready,
    ),
    tags(
        (name = "runs", description = "One piece of code, run once in a fresh microVM"),
        (name = "queue", description = "What waits"),
        (name = "hosts", description = "The machines that run microVMs"),
        (name = "usage", description = "What was used"),
        (name = "keys", description = "Who may ask"),
        (name = "health", description = "Whether the service is there"),
    ),
    security(("key" = [])),
    modifiers(&Keys),
)]
struct Api;

struct Keys;

impl Modify for Keys {
    fn modify(&self, api: &mut OpenApi) {
        let bearer = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("An API key: firelane key create"))
            .build();
        let components = api.components.get_or_insert_default();
        components.add_security_scheme("key", SecurityScheme::Http(bearer));
    }
}

/// The description.
#[must_use]
pub fn document() -> OpenApi {
    Api::openapi()
}

pub(crate) async fn serve() -> Json<OpenApi> {
    Json(document())
}
