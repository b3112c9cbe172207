//! `/v1/sandboxes/{id}/execs`.

use axum::body::Body;
use axum::http::Request;
use futures_util::StreamExt;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tower::ServiceExt;

use crate::coordinator::sandbox_id;
use crate::fake::{As, Fake, Told, head, request};

fn execs() -> String {
    format!("/v1/sandboxes/{}/execs", sandbox_id())
}

/// A program that is not waited for; gives its path.
async fn started(fake: &Fake, command: &str) -> String {
    let body = json!({ "command": [command] }).to_string();
    let request = head("POST", &execs(), As::Owner)
        .header("content-type", "application/json")
        .header("prefer", "respond-async")
        .body(Body::from(body));
    let told = fake.send(request.expect("it is a request")).await;
    assert_eq!(told.status, 202, "{}", told.json());
    assert_eq!(told.header("preference-applied"), Some("respond-async"));
    let location = told.header("location").expect("it has a place");
    let id = told.json()["id"]
        .as_str()
        .expect("it has a name")
        .to_owned();
    assert_eq!(location, format!("{}/{id}", execs()));
    location.into()
}

#[tokio::test]
async fn a_program_is_waited_for_and_what_it_wrote_is_told() {
    let fake = Fake::start().await;
    let told = fake.post(&execs(), r#"{"command":["say"]}"#).await;
    assert_eq!(told.status, 200, "{}", told.json());
    let exec = told.json();
    assert_eq!(exec["running"], false);
    assert_eq!(exec["ending"]["exit_code"], 0);
    let output = json!({"stdout": "hi\n", "stderr": "a\u{fffd}", "stderr_base64": "Yf8="});
    assert_eq!(exec["output"], output);
    let location = told.header("location").expect("it has a place");
    let got = fake.get(location, As::Owner).await.json();
    assert_eq!((&got["id"], &got["output"]), (&exec["id"], &Value::Null));
    // Whoever waited does not kill it.
    assert_eq!(fake.asked.all("FeedExec").len(), 0);
}

#[tokio::test]
async fn what_firelane_could_not_run_is_a_problem() {
    let fake = Fake::start().await;
    let told = fake.post(&execs(), r#"{"command":["fail"]}"#).await;
    assert_eq!(told.code(503), "unavailable");
    let told = fake.post(&execs(), r#"{"command":["lost"]}"#).await;
    assert_eq!(told.code(500), "internal");
    for (body, code) in [
        ("{}", "invalid"),
        (r#"{"command":["a"],"code":"b"}"#, "invalid"),
        (r#"{"command":["a"],"tty":true}"#, "invalid"),
    ] {
        assert_eq!(fake.post(&execs(), body).await.code(400), code, "{body}");
    }
    assert_eq!(fake.asked.all("StartExec").len(), 2);
}

#[tokio::test]
async fn a_caller_that_leaves_kills_what_it_waits_for() {
    let fake = Fake::start().await;
    let request = request("POST", &execs(), As::Owner, Some(r#"{"command":["hold"]}"#));
    let waiting = tokio::spawn(fake.gateway.router().oneshot(request));
    fake.asked.until("StartExec").await;
    waiting.abort();
    let fed = fake.asked.until("FeedExec").await;
    assert!(fed.contains("input: Signal(9)"), "{fed}");
}

#[tokio::test]
async fn a_program_that_nobody_waits_for_goes_on_until_it_is_killed() {
    let fake = Fake::start().await;
    let path = started(&fake, "hold").await;
    let listed = fake.get(&execs(), As::Owner).await.json();
    assert_eq!(listed[0]["running"], true);
    for _ in 0..2 {
        // The second time it is over already.
        let killed = fake.ask("DELETE", &path, As::Owner, None).await;
        assert_eq!(killed.status, 200, "{}", killed.json());
        assert_eq!(killed.json()["running"], false);
        assert_eq!(killed.json()["ending"]["signal"], 9);
    }
}

#[tokio::test]
async fn what_is_sent_to_a_program_arrives() {
    let fake = Fake::start().await;
    let path = started(&fake, "hold").await;
    for (verb, body, fed) in [
        ("signal", r#"{"signal":15}"#, vec!["Signal(15)"]),
        ("stdin", r#"{"content":"ab"}"#, vec!["Stdin([97, 98])"]),
        (
            "stdin",
            r#"{"content":{"base64":"Yg=="},"end":true}"#,
            vec!["Stdin([98])", "End"],
        ),
        ("stdin", r#"{"end":true}"#, vec!["End"]),
        (
            "resize",
            r#"{"rows":3,"cols":4}"#,
            vec!["Resize { rows: 3, cols: 4 }"],
        ),
    ] {
        let before = fake.asked.all("FeedExec").len();
        let told = fake.post(&format!("{path}:{verb}"), body).await;
        assert_eq!(told.status, 204, "{verb} {body}: {}", told.json());
        let asked = fake.asked.all("FeedExec").split_off(before);
        assert_eq!(asked.len(), fed.len(), "{asked:?}");
        for (asked, fed) in asked.iter().zip(fed) {
            assert!(asked.contains(&format!("input: {fed}")), "{asked}");
        }
    }
    let before = fake.asked.all("FeedExec").len();
    for (verb, body) in [
        ("signal", r#"{"signal":0}"#),
        ("signal", r#"{"signal":65}"#),
        ("signal", "{}"),
        ("stdin", r#"{"content":{"base64":"!"}}"#),
        ("resize", r#"{"rows":0,"cols":4}"#),
        ("resize", r#"{"rows":70000,"cols":4}"#),
    ] {
        let told = fake.post(&format!("{path}:{verb}"), body).await;
        assert_eq!(told.code(400), "invalid", "{verb} {body}");
    }
    let told = fake.post(&format!("{path}:explode"), "{}").await;
    assert_eq!(told.code(404), "not_found");
    assert_eq!(told.json()["remedy"], "there are :signal, :stdin, :resize");
    assert_eq!(fake.asked.all("FeedExec").len(), before);
}

/// Names and numbers of server-sent events.
fn events(told: &Told) -> Vec<String> {
    let text = String::from_utf8(told.body.clone()).expect("it is text");
    let wanted = |line: &&str| line.starts_with("event: ") || line.starts_with("id: ");
    let lines = text
        .lines()
        .filter(wanted)
        .map(|line| line.replace(": ", "="));
    lines.collect()
}

fn after(path: &str, last: &str) -> Request<Body> {
    let request = head("GET", path, As::Owner).header("last-event-id", last);
    request.body(Body::empty()).expect("it is a request")
}

#[tokio::test]
async fn events_go_on_after_the_last_that_is_known() {
    let fake = Fake::start().await;
    let path = format!("{}/events", started(&fake, "say").await);
    let all = fake.get(&path, As::Owner).await;
    assert_eq!(all.header("content-type"), Some("text/event-stream"));
    let expected = [
        "event=stdout",
        "id=1",
        "event=stderr",
        "id=2",
        "event=ended",
        "id=3",
    ];
    assert_eq!(events(&all), expected);
    let rest = fake.send(after(&path, "2")).await;
    assert_eq!(events(&rest), expected[4..]);
    assert_eq!(fake.send(after(&path, "3")).await.status, 204);
    assert_eq!(fake.send(after(&path, "x")).await.code(400), "invalid");
}

#[tokio::test]
async fn events_that_are_gone_are_told_though_nobody_says_so() {
    let fake = Fake::start().await;
    let path = format!("{}/events", started(&fake, "lost").await);
    let all = fake.get(&path, As::Owner).await;
    let expected = [
        "event=gap",
        "id=2",
        "event=stdout",
        "id=3",
        "event=ended",
        "id=4",
    ];
    assert_eq!(events(&all), expected);
    let text = String::from_utf8(all.body).expect("it is text");
    assert!(text.contains(r#"data: {"first":1,"last":2}"#), "{text}");
}

#[tokio::test]
async fn a_websocket_tells_the_same_and_takes_input() {
    let fake = Fake::start().await;
    let (address, _stop) = fake.listen().await;
    let open = async |path: &str| {
        let url = format!("ws://{address}{path}/ws");
        let mut request = url.into_client_request().expect("it is a request");
        let head = head("GET", "/", As::Owner).body(()).expect("it is a head");
        let key = head.headers()["authorization"].clone();
        request.headers_mut().insert("authorization", key);
        connect_async(request).await.expect("it opens").0
    };
    let lost = started(&fake, "lost").await;
    let mut socket = open(&lost).await;
    let mut told = Vec::new();
    while let Some(Ok(message)) = socket.next().await {
        if let Ok(text) = message.to_text()
            && let Ok(json) = serde_json::from_str::<Value>(text)
        {
            told.push(json);
        }
    }
    assert_eq!(
        told[0],
        json!({"event": "gap", "id": 2, "first": 1, "last": 2})
    );
    assert_eq!(told[1], json!({"event": "stdout", "id": 3, "text": "hi\n"}));
    assert_eq!(told[2]["event"], "ended");

    let hold = started(&fake, "hold").await;
    let mut socket = open(&hold).await;
    let kill = r#"{"type":"signal","signal":9}"#;
    futures_util::SinkExt::send(&mut socket, kill.into())
        .await
        .expect("it is taken");
    let fed = fake.asked.until("FeedExec").await;
    assert!(fed.contains("input: Signal(9)"), "{fed}");
}

#[tokio::test]
async fn a_stream_that_goes_on_is_sent_as_it_happens() {
    let fake = Fake::start().await;
    let path = started(&fake, "hold").await;
    let request = request("GET", &format!("{path}/events"), As::Owner, None);
    let mut body = fake.open(request).await.into_body();
    let first = body
        .frame()
        .await
        .expect("there is one")
        .expect("it is whole");
    let first = first.into_data().expect("it is data");
    assert!(first.starts_with(b"event: stdout"), "{first:?}");
    fake.ask("DELETE", &path, As::Owner, None).await;
    let rest = body.collect().await.expect("it is whole").to_bytes();
    assert!(rest.starts_with(b"event: ended"), "{rest:?}");
}

#[tokio::test]
async fn programs_of_others_are_not_there_and_the_scope_is_asked_for() {
    let fake = Fake::start().await;
    let path = started(&fake, "hold").await;
    let execs = execs();
    let none = format!("{execs}/exe-{:032x}", 1);
    let paths: [(&str, String, Option<&str>); 9] = [
        ("GET", execs.clone(), None),
        ("POST", execs, Some(r#"{"command":["say"]}"#)),
        ("GET", path.clone(), None),
        ("DELETE", path.clone(), None),
        ("GET", format!("{path}/events"), None),
        ("GET", format!("{path}/ws"), None),
        ("POST", format!("{path}:signal"), Some(r#"{"signal":9}"#)),
        ("POST", format!("{path}:stdin"), Some("{}")),
        (
            "POST",
            format!("{path}:resize"),
            Some(r#"{"rows":1,"cols":1}"#),
        ),
    ];
    for (method, path, body) in &paths {
        let told = fake.ask(method, path, As::Stranger, *body).await;
        assert_eq!(told.code(404), "not_found", "{method} {path}");
        let told = fake.ask(method, path, As::Runner, *body).await;
        assert_eq!(told.code(403), "forbidden", "{method} {path}");
    }
    assert_eq!(fake.asked.all("StartExec").len(), 1);
    assert_eq!(fake.asked.all("FeedExec").len(), 0);
    for (method, path) in [
        ("GET", none.clone()),
        ("DELETE", none.clone()),
        ("GET", format!("{none}/events")),
        ("GET", format!("{none}/ws")),
        ("GET", none.replace("exe-", "run-")),
    ] {
        let told = fake.ask(method, &path, As::Owner, None).await;
        assert_eq!(told.code(404), "not_found", "{method} {path}");
    }
}
