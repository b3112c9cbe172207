//! `/v1/sandboxes` and `/v1/snapshots`.

use serde_json::json;

use crate::coordinator::{sandbox_id, snapshot_id};
use crate::fake::{As, Fake};

#[tokio::test]
async fn a_sandbox_is_made_and_its_place_told() {
    let fake = Fake::start().await;
    let body = r#"{"ttl_s":60,"labels":{"a":"b"},"idle":{"after_s":5,"then":"pause"}}"#;
    let made = fake.post("/v1/sandboxes", body).await;
    assert_eq!(made.status, 201, "{}", made.json());
    let path = format!("/v1/sandboxes/{}", sandbox_id());
    assert_eq!(made.header("location"), Some(path.as_str()));
    assert_eq!(made.json()["state"], "running");
    let asked = fake.asked.until("CreateSandbox").await;
    for part in ["tenant: \"ours\"", "ttl_s: 60", r#""a": "b""#] {
        assert!(asked.contains(part), "{asked}");
    }
    let got = fake.get(&path, As::Owner).await;
    assert_eq!(got.json()["id"], sandbox_id().to_string());
}

#[tokio::test]
async fn what_cannot_be_a_sandbox_is_refused_before_anybody_is_asked() {
    let fake = Fake::start().await;
    for (body, status, code) in [
        ("{", 400, "invalid"),
        (r#"["default"]"#, 400, "invalid"),
        (r#"{"ttl":60}"#, 400, "invalid"),
        (r#"{"ttl_s":0}"#, 400, "invalid"),
        (r#"{"snapshot":"run-1"}"#, 400, "invalid"),
        (r#"{"template":"none"}"#, 404, "not_found"),
    ] {
        let told = fake.post("/v1/sandboxes", body).await;
        assert_eq!(told.code(status), code, "{body}");
    }
    assert_eq!(fake.asked.all("CreateSandbox").len(), 1);
}

#[tokio::test]
async fn a_list_is_asked_for_with_its_labels() {
    let fake = Fake::start().await;
    let path = "/v1/sandboxes?labels=a=b,c=d&gone=true&limit=3&cursor=x";
    let page = fake.get(path, As::Owner).await;
    assert_eq!(page.status, 200);
    assert_eq!(page.json()["items"][0]["state"], "paused");
    assert_eq!(page.json()["next_cursor"], "more");
    let asked = fake.asked.until("ListSandboxes").await;
    for part in [
        r#"{"a": "b", "c": "d"}"#,
        "gone: true",
        "limit: Some(3)",
        r#"cursor: Some("x")"#,
    ] {
        assert!(asked.contains(part), "{asked}");
    }
    for query in ["labels=a", "gone=perhaps", "lables=a=b"] {
        let told = fake.get(&format!("/v1/sandboxes?{query}"), As::Owner).await;
        assert_eq!(told.code(400), "invalid", "{query}");
    }
}

#[tokio::test]
async fn each_change_is_the_one_that_was_asked_for() {
    let fake = Fake::start().await;
    let path = format!("/v1/sandboxes/{}", sandbox_id());
    let snapshot = format!(r#"{{"snapshot":"{}"}}"#, snapshot_id());
    for (method, verb, body, change, state) in [
        ("POST", ":pause", None, "Pause", "paused"),
        ("POST", ":resume", None, "Resume", "running"),
        (
            "POST",
            ":rollback",
            Some(snapshot.as_str()),
            "RollBack(snp-",
            "running",
        ),
        (
            "PATCH",
            "",
            Some(r#"{"ttl_s":9}"#),
            "Patch(SandboxPatch { ttl_s: Some(9)",
            "running",
        ),
        ("DELETE", "", None, "Destroy", "destroyed"),
    ] {
        let told = fake
            .ask(method, &format!("{path}{verb}"), As::Owner, body)
            .await;
        assert_eq!(told.status, 200, "{method} {verb}: {}", told.json());
        assert_eq!(told.json()["state"], state);
        let asked = fake.asked.all("ChangeSandbox");
        let asked = asked.last().expect("it was asked");
        assert!(asked.contains(&format!("change: {change}")), "{asked}");
    }
    let count = fake.asked.all("ChangeSandbox").len();
    for (method, verb, body, code) in [
        ("PATCH", "", r#"{"ttl_s":0}"#, "invalid"),
        ("PATCH", "", r#"{"state":"paused"}"#, "invalid"),
        ("POST", ":rollback", "{}", "invalid"),
        ("POST", ":rollback", r#"{"snapshot":"snp-1"}"#, "invalid"),
    ] {
        let told = fake
            .ask(method, &format!("{path}{verb}"), As::Owner, Some(body))
            .await;
        assert_eq!(told.code(400), code, "{body}");
    }
    assert_eq!(fake.asked.all("ChangeSandbox").len(), count);
}

#[tokio::test]
async fn forks_stand_each_for_itself() {
    let fake = Fake::start().await;
    let path = format!("/v1/sandboxes/{}:fork", sandbox_id());
    let forks = fake.post(&path, r#"{"count":2}"#).await;
    assert_eq!(forks.status, 200);
    let json = forks.json();
    assert_eq!(json["forks"][0]["sandbox"]["id"], sandbox_id().to_string());
    assert_eq!(json["forks"][1]["problem"]["code"], "unavailable");
    for body in [r#"{"count":0}"#, r#"{"count":101}"#, "{}"] {
        assert_eq!(fake.post(&path, body).await.code(400), "invalid", "{body}");
    }
}

#[tokio::test]
async fn a_verb_that_is_none_is_told_those_that_are() {
    let fake = Fake::start().await;
    for target in [
        format!("{}:explode", sandbox_id()),
        format!("{}:", sandbox_id()),
        sandbox_id().to_string(),
        format!("{}:pause:pause", sandbox_id()),
    ] {
        let told = fake.post(&format!("/v1/sandboxes/{target}"), "").await;
        assert_eq!(told.code(404), "not_found", "{target}");
        let remedy = told.json()["remedy"].clone();
        assert_eq!(remedy, "there are :pause, :resume, :fork, :rollback");
    }
    let told = fake.post("/v1/sandboxes/sbx-1:pause", "").await;
    assert_eq!(told.code(404), "not_found");
    assert_eq!(fake.asked.all("ChangeSandbox").len(), 0);
}

#[tokio::test]
async fn snapshots_are_taken_found_and_removed() {
    let fake = Fake::start().await;
    let of_sandbox = format!("/v1/sandboxes/{}/snapshots", sandbox_id());
    let path = format!("/v1/snapshots/{}", snapshot_id());
    let taken = fake.ask("POST", &of_sandbox, As::Owner, None).await;
    assert_eq!(taken.status, 201, "{}", taken.json());
    assert_eq!(taken.header("location"), Some(path.as_str()));
    let got = fake.get(&path, As::Owner).await.json();
    assert_eq!(got["size_bytes"], 4096);
    for (list, of) in [
        (of_sandbox.as_str(), "Some(sbx-"),
        ("/v1/snapshots", "None"),
    ] {
        let page = fake.get(&format!("{list}?limit=2"), As::Owner).await;
        assert_eq!(page.json()["items"], json!([got]));
        let asked = fake.asked.all("ListSnapshots");
        let asked = asked.last().expect("it was asked");
        assert!(asked.contains(&format!("sandbox: {of}")), "{asked}");
        assert!(asked.contains("limit: Some(2)"), "{asked}");
    }
    let removed = fake.ask("DELETE", &path, As::Owner, None).await;
    assert_eq!(removed.status, 204);
    fake.asked.until("RemoveSnapshot").await;
}

/// Every path of this resource, with a body that is right.
const PATHS: [(&str, &str, Option<&str>); 12] = [
    ("GET", "/v1/sandboxes/SBX", None),
    ("PATCH", "/v1/sandboxes/SBX", Some("{}")),
    ("DELETE", "/v1/sandboxes/SBX", None),
    ("POST", "/v1/sandboxes/SBX:pause", None),
    ("POST", "/v1/sandboxes/SBX:resume", None),
    ("POST", "/v1/sandboxes/SBX:fork", Some(r#"{"count":1}"#)),
    (
        "POST",
        "/v1/sandboxes/SBX:rollback",
        Some(r#"{"snapshot":"SNP"}"#),
    ),
    ("POST", "/v1/sandboxes/SBX/snapshots", None),
    ("GET", "/v1/sandboxes/SBX/snapshots", None),
    ("GET", "/v1/snapshots/SNP", None),
    ("DELETE", "/v1/snapshots/SNP", None),
    (
        "GET",
        "/v1/sandboxes/sbx-00000000000000000000000000000001",
        None,
    ),
];

#[tokio::test]
async fn what_is_anothers_is_not_there_and_the_scope_is_asked_for() {
    let fake = Fake::start().await;
    let ids = |text: &str| {
        let text = text.replace("SBX", &sandbox_id().to_string());
        text.replace("SNP", &snapshot_id().to_string())
    };
    for (method, path, body) in PATHS {
        let body = body.map(ids);
        for (who, status, code) in [
            (As::Stranger, 404, "not_found"),
            (As::Runner, 403, "forbidden"),
        ] {
            let told = fake.ask(method, &ids(path), who, body.as_deref()).await;
            assert_eq!(told.code(status), code, "{method} {path} {who:?}");
        }
    }
    for path in ["/v1/sandboxes", "/v1/snapshots"] {
        assert_eq!(fake.get(path, As::Runner).await.code(403), "forbidden");
        let page = fake.get(path, As::Stranger).await;
        assert_eq!(page.json()["items"], json!([]), "{path}");
    }
    let made = fake
        .ask("POST", "/v1/sandboxes", As::Runner, Some("{}"))
        .await;
    assert_eq!(made.code(403), "forbidden");
}
