//! The API's description (OpenAPI 3.1), made from the types and handlers.
//!
//! `docs/openapi.json` is a copy of it that people and tools read; `cargo xtask openapi` writes it, and
//! a test here fails while it is another.

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
        crate::runs::batch::batch,
        crate::runs::list::list,
        crate::runs::get::get,
        crate::runs::cancel::cancel,
        crate::runs::events::get,
        crate::runs::ws::get,
        crate::sandboxes::create::create,
        crate::sandboxes::list::list,
        crate::sandboxes::get::get,
        crate::sandboxes::change::patch,
        crate::sandboxes::change::destroy,
        crate::sandboxes::change::pause,
        crate::sandboxes::change::resume,
        crate::sandboxes::change::roll_back,
        crate::sandboxes::fork::fork,
        crate::sandboxes::snapshots::take,
        crate::sandboxes::snapshots::of_sandbox,
        crate::sandboxes::snapshots::list,
        crate::sandboxes::snapshots::get,
        crate::sandboxes::snapshots::remove,
        crate::sandboxes::execs::start::start,
        crate::sandboxes::execs::look::list,
        crate::sandboxes::execs::look::get,
        crate::sandboxes::execs::feed::kill,
        crate::sandboxes::execs::feed::signal,
        crate::sandboxes::execs::feed::stdin,
        crate::sandboxes::execs::feed::resize,
        crate::sandboxes::execs::stream::events,
        crate::sandboxes::execs::stream::ws,
        crate::sandboxes::files::get::get,
        crate::sandboxes::files::put::put,
        crate::sandboxes::files::entries::remove,
        crate::sandboxes::files::entries::get,
        crate::sandboxes::files::entries::change_path,
        crate::sandboxes::files::folders::list,
        crate::sandboxes::files::folders::make,
        crate::sandboxes::files::archives::get,
        crate::sandboxes::files::archives::put,
        crate::sandboxes::files::watch::get,
        crate::templates::builds::start,
        crate::templates::look::list,
        crate::templates::look::get,
        crate::templates::look::remove,
        crate::templates::builds::get,
        crate::templates::builds::events,
        crate::look::queue,
        crate::look::hosts,
        crate::look::usage,
        crate::keys::make,
        crate::keys::list,
        crate::keys::revoke,
        crate::look::health,
        crate::look::ready,
        crate::metrics::metrics,
        serve,
    ),
    tags(
        (name = "runs", description = "One piece of code, run once in a fresh microVM"),
        (name = "sandboxes", description = "MicroVMs that stay for a while"),
        (name = "execs", description = "Programs in a sandbox"),
        (name = "files", description = "Files of a sandbox"),
        (name = "snapshots", description = "Sandboxes as they were at one instant"),
        (name = "templates", description = "What microVMs are made from"),
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

/// The description as `docs/openapi.json` has it.
///
/// # Errors
/// None that is known: it is strings and numbers.
pub fn text() -> serde_json::Result<String> {
    let json = document().to_pretty_json()?;
    Ok(json + "\n")
}

/// This description
#[utoipa::path(get, path = "/openapi.json", operation_id = "openapi", tag = "health", security(()),
    responses((status = 200, description = "OpenAPI 3.1", body = serde_json::Value)))]
pub(crate) async fn serve() -> Json<OpenApi> {
    Json(document())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    #[test]
    fn the_committed_copy_is_what_the_types_say() {
        let committed = include_str!("../../../docs/openapi.json");
        let current = text().expect("it can be written");
        let same = committed == current;
        assert!(
            same,
            "docs/openapi.json is out of date: cargo xtask openapi"
        );
    }

    #[test]
    fn every_operation_has_a_name_of_its_own_and_says_what_it_answers() {
        let document = serde_json::to_value(document()).expect("it is JSON");
        let mut names = BTreeSet::new();
        for (path, methods) in document["paths"].as_object().expect("there are paths") {
            for (method, operation) in methods.as_object().expect("there are methods") {
                let name = operation["operationId"].as_str().expect("it has a name");
                assert!(names.insert(name.to_owned()), "{name} is there twice");
                for text in ["summary", "tags"] {
                    assert!(!operation[text].is_null(), "{method} {path} has no {text}");
                }
                let responses = operation["responses"].as_object().expect("it answers");
                for (status, response) in responses {
                    let description = response["description"].as_str().unwrap_or_default();
                    assert!(!description.is_empty(), "{method} {path}: {status}");
                }
                let open = operation["security"] == serde_json::json!([{}]);
                let problem = &responses.get("default").unwrap_or(&Value::Null)["content"];
                let told = problem["application/problem+json"].is_object();
                assert!(open || told, "{method} {path} has no problem");
            }
        }
        assert!(names.contains("run_create"), "{names:?}");
    }
}
