//! Templates over HTTP, really built.

use firelane_client::Method;
use firelane_testkit::Lab;
use firelane_testkit::service::Service;
use firelane_wire::template::{Build, BuildState};
use serde_json::{Value, json};

/// A template that nobody else has: others use the same store at the same time.
const NAME: &str = "built-over-http";

fn post(service: &Service<'_>, request: &Value) -> (u16, Value) {
    let body = request.to_string();
    let (status, answer) = service.ask(Method::POST, "/v1/templates", Some(body.as_bytes()));
    (status, serde_json::from_slice(&answer).expect("JSON"))
}

/// The events of a build after one of them, to the end of the stream: their numbers, names and data.
fn events(service: &Service<'_>, build: &str, after: &str) -> Vec<(String, String, Value)> {
    let path = format!("/v1/builds/{build}/events");
    let headers = [("last-event-id", after)];
    let asked = service.client.send(Method::GET, &path, None, &headers);
    let raw = service.runtime.block_on(asked).expect("an answer");
    let text = String::from_utf8(raw.body.to_vec()).expect("text");
    let field = |event: &str, name: &str| {
        let mut lines = event.lines();
        lines.find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()))
    };
    let blocks = text.split("\n\n").filter(|block| block.contains("event:"));
    blocks
        .map(|block| {
            let data = field(block, "data:").expect("data");
            (
                field(block, "id:").unwrap_or_default(),
                field(block, "event:").expect("a name"),
                serde_json::from_str(&data).expect("JSON"),
            )
        })
        .collect()
}

#[test]
fn a_template_is_built_used_and_removed_over_http() {
    let lab = Lab::new();
    let service = Service::start(&lab, &["--pool-max", "0"]);
    // One that was killed left it there.
    service.ask(Method::DELETE, &format!("/v1/templates/{NAME}"), None);
    let base = service.json(Method::GET, "/v1/templates/base", None);
    assert_eq!(base["name"], "base", "{base}");
    assert!(base["packages"]["bash"].is_string(), "{base}");

    let definition = "description = 'made by a test'\ninclude = ['base']\nmemory_mib = 192\n\
                      [env]\nGREETING = 'hello'\n[files.'etc/greeting']\ncontent = 'from a file'\n";
    let request = json!({"name": NAME, "definition": definition});
    let (status, build) = post(&service, &request);
    assert_eq!(status, 202, "{build}");
    let build: Build = serde_json::from_value(build).expect("a build");
    assert_eq!(
        (build.template.as_str(), build.state),
        (NAME, BuildState::Running)
    );
    // One at a time.
    let (status, problem) = post(&service, &json!({"name": "base"}));
    assert_eq!(
        (status, &problem["code"]),
        (409, &json!("conflict")),
        "{problem}"
    );

    let all = events(&service, &build.id.to_string(), "0");
    let (_, last, ended) = all.last().expect("an end");
    assert_eq!(
        (last.as_str(), &ended["build"]["state"]),
        ("ended", &json!("done")),
        "{ended}"
    );
    let steps: Vec<&Value> = all.iter().map(|(_, _, data)| &data["step"]).collect();
    for step in ["packages", "byte-code", "image", "snapshot"] {
        assert!(steps.contains(&&json!(step)), "{step}: {steps:?}");
    }
    // A client that comes back gets what it has not.
    let (number, ..) = &all[2];
    assert_eq!(events(&service, &build.id.to_string(), number), all[3..]);
    let known = service.json(Method::GET, &format!("/v1/builds/{}", build.id), None);
    assert_eq!(known["state"], "done", "{known}");

    let template = service.json(Method::GET, &format!("/v1/templates/{NAME}"), None);
    assert_eq!(template["memory_mib"], 192, "{template}");
    let list = service.json(Method::GET, "/v1/templates", None);
    assert!(list.as_array().expect("a list").contains(&template));
    let code = "echo $GREETING; cat /etc/greeting";
    let run = json!({"lang": "bash", "code": code, "template": NAME});
    let run = service.json(Method::POST, "/v1/runs", Some(&run));
    assert_eq!(run["outcome"]["stdout"], "hello\nfrom a file", "{run}");

    let path = format!("/v1/templates/{NAME}");
    assert_eq!(service.ask(Method::DELETE, &path, None).0, 204);
    assert_eq!(service.ask(Method::GET, &path, None).0, 404);
    assert_eq!(service.ask(Method::DELETE, &path, None).0, 404);
    assert_eq!(service.stop(), 0);
}

#[test]
fn what_cannot_be_built_is_told_at_once() {
    let lab = Lab::new();
    let service = Service::start(&lab, &["--pool-max", "0"]);
    let refused = |request: Value, status: u16, word: &str| {
        let (found, problem) = post(&service, &request);
        assert_eq!(found, status, "{problem}");
        let cause = problem["cause"].as_str().expect("a cause");
        assert!(cause.contains(word), "{problem}");
        assert!(problem["request_id"].is_string());
    };
    let defined = |definition: &str| json!({"name": "mine", "definition": definition});
    refused(json!({"name": "no-such"}), 404, "no-such");
    refused(json!({"name": "../up", "definition": ""}), 400, "../up");
    refused(json!({"name": "base", "definition": ""}), 400, "built-in");
    refused(
        json!({"name": "mine", "definition": "", "more": 1}),
        400,
        "more",
    );
    refused(defined("packages = 1"), 400, "mine");
    refused(defined("packages = ['-x']"), 400, "-x");
    refused(defined("include = ['/etc/passwd']"), 400, "/etc/passwd");
    refused(
        defined("[files.'etc/x']\nsource = '/etc/shadow'"),
        400,
        "etc/x",
    );
    refused(defined("exclude = ['*a*b*c*d']"), 400, "exclude");
    refused(defined(&"#".repeat(600 << 10)), 413, "bytes");
    let host = service.ask(Method::GET, "/v1/templates?host=elsewhere", None);
    assert_eq!(host.0, 404);
    let unknown = "/v1/builds/bld-0198c0de0000700080000000c0ffee00";
    assert_eq!(service.ask(Method::GET, unknown, None).0, 404);
    assert_eq!(
        service
            .ask(Method::GET, &format!("{unknown}/events"), None)
            .0,
        404
    );
    assert_eq!(service.stop(), 0);
}
