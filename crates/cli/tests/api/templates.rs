//! Templates of a host that only says that it built them.

use std::collections::{BTreeMap, HashMap};
use std::future::ready;
use std::sync::{Arc, Mutex};

use axum::http::StatusCode;
use firelane_model::id::BuildId;
use firelane_store::bus::Server;
use firelane_wire::bus::{DropTemplate, GetTemplate, ListTemplates, ReadBuild, StartBuild};
use firelane_wire::problem::Problem;
use firelane_wire::template::{Build, BuildLine, BuildPage, BuildState, Template};
use serde_json::{Value, json};

use crate::host::HOST;
use crate::service::Service;

#[derive(Default)]
struct All {
    templates: BTreeMap<String, Template>,
    builds: HashMap<BuildId, Build>,
}

/// Serves them; every build is done at once.
pub(crate) async fn serve(server: &mut Server) {
    let all: Arc<Mutex<All>> = Arc::default();
    let here = Arc::clone(&all);
    let list = move |_: ListTemplates| {
        let all = here.lock().expect("nobody panicked");
        ready(Ok(all.templates.values().cloned().collect()))
    };
    server.on(list).await.expect("it is served");
    let here = Arc::clone(&all);
    let get = move |call: GetTemplate| {
        let all = here.lock().expect("nobody panicked");
        let found = all.templates.get(&call.name).cloned();
        ready(found.ok_or_else(|| Problem::not_found("template", &call.name)))
    };
    server.on(get).await.expect("it is served");
    let here = Arc::clone(&all);
    let remove = move |call: DropTemplate| {
        let mut all = here.lock().expect("nobody panicked");
        let removed = all.templates.remove(&call.name).map(drop);
        ready(removed.ok_or_else(|| Problem::not_found("template", &call.name)))
    };
    server.on(remove).await.expect("it is served");
    let here = Arc::clone(&all);
    let start = move |call: StartBuild| {
        let name = call.request.name;
        let build = Build {
            id: call.id,
            template: name.clone(),
            host: HOST.into(),
            state: BuildState::Done,
            started_at: "2026-01-01T00:00:00Z".into(),
            problem: None,
        };
        let mut all = here.lock().expect("nobody panicked");
        all.builds.insert(call.id, build.clone());
        all.templates.insert(name.clone(), template(name));
        ready(Ok(build))
    };
    server.on(start).await.expect("it is served");
    let read = move |call: ReadBuild| {
        let all = all.lock().expect("nobody panicked");
        let found = all.builds.get(&call.id).cloned();
        let line = BuildLine {
            step: "packages".into(),
            message: "one".into(),
        };
        let lines = if call.after == 0 {
            vec![(1, line)]
        } else {
            Vec::new()
        };
        let page = found.map(|build| BuildPage { lines, build });
        ready(page.ok_or_else(|| Problem::not_found("build", call.id)))
    };
    server.on(read).await.expect("it is served");
}

fn template(name: String) -> Template {
    Template {
        name,
        description: String::new(),
        id: "0".repeat(64),
        created_at: "2026-01-01T00:00:00Z".into(),
        memory_mib: 256,
        rootfs_bytes: 1 << 20,
        kernel: "6.1".into(),
        packages: BTreeMap::new(),
    }
}

#[tokio::test]
async fn the_same_key_means_the_same_build() {
    let service = Service::start(2, 10).await;
    let ask = async |name: &str| {
        let request = axum::http::Request::post("/v1/templates")
            .header("content-type", "application/json")
            .header("idempotency-key", "once")
            .body(json!({ "name": name }).to_string().into())
            .expect("it is a request");
        let answer = service.ask(request).await;
        let (status, replayed) = (
            answer.status(),
            answer.headers().contains_key("idempotent-replayed"),
        );
        let body = axum::body::to_bytes(answer.into_body(), 1 << 20).await;
        let answer: Value = serde_json::from_slice(&body.expect("a body")).expect("JSON");
        (status, replayed, answer)
    };
    let (first, second) = (ask("mine").await, ask("mine").await);
    assert_eq!(
        (first.0, first.1),
        (StatusCode::ACCEPTED, false),
        "{}",
        first.2
    );
    assert_eq!(
        (second.0, second.1),
        (StatusCode::ACCEPTED, true),
        "{}",
        second.2
    );
    assert_eq!(first.2["id"], second.2["id"]);
    let (_, _, other) = ask("other").await;
    assert_eq!(other["code"], "key_reused", "{other}");
}
