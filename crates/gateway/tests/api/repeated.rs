//! Requests with an idempotency key.

use axum::body::Body;
use axum::http::Request;
use tower::ServiceExt;

use crate::coordinator::sandbox_id;
use crate::fake::{As, Fake, Told, head};

fn keyed(path: &str, who: As, key: &str, body: &str) -> Request<Body> {
    let request = head("POST", path, who)
        .header("content-type", "application/json")
        .header("idempotency-key", key)
        .body(Body::from(body.to_owned()));
    request.expect("it is a request")
}

async fn made(fake: &Fake, key: &str, body: &str) -> Told {
    fake.send(keyed("/v1/sandboxes", As::Owner, key, body))
        .await
}

fn is_replayed(told: &Told) -> bool {
    told.header("idempotent-replayed") == Some("true")
}

#[tokio::test]
async fn a_repeated_request_gets_the_first_answer() {
    let fake = Fake::start().await;
    let first = made(&fake, "once", r#"{"ttl_s":60}"#).await;
    assert_eq!((first.status.as_u16(), is_replayed(&first)), (201, false));
    let second = made(&fake, "once", r#"{"ttl_s":60}"#).await;
    assert_eq!((second.status.as_u16(), is_replayed(&second)), (201, true));
    assert_eq!(second.body, first.body);
    for name in ["location", "content-type"] {
        assert_eq!(second.header(name), first.header(name), "{name}");
    }
    assert_ne!(second.header("x-request-id"), first.header("x-request-id"));
    assert_eq!(fake.asked.all("CreateSandbox").len(), 1);
    // Another key is another request, and so is the same key of another tenant.
    made(&fake, "twice", r#"{"ttl_s":60}"#).await;
    let body = r#"{"ttl_s":60}"#;
    fake.send(keyed("/v1/sandboxes", As::Stranger, "once", body))
        .await;
    assert_eq!(fake.asked.all("CreateSandbox").len(), 3);
}

#[tokio::test]
async fn a_key_belongs_to_one_request() {
    let fake = Fake::start().await;
    made(&fake, "once", r#"{"ttl_s":60}"#).await;
    for (path, body) in [
        ("/v1/sandboxes".into(), r#"{"ttl_s":61}"#),
        ("/v1/sandboxes?a=b".into(), r#"{"ttl_s":60}"#),
        (
            format!("/v1/sandboxes/{}:fork", sandbox_id()),
            r#"{"ttl_s":60}"#,
        ),
    ] {
        let told = fake.send(keyed(&path, As::Owner, "once", body)).await;
        assert_eq!(told.code(422), "key_reused", "{path} {body}");
        assert!(!is_replayed(&told));
    }
    for key in ["", "ä", &"k".repeat(256)] {
        let told = made(&fake, key, "{}").await;
        assert_eq!(told.code(400), "invalid", "{key:?}");
    }
}

#[tokio::test]
async fn a_refusal_is_repeated_and_a_failure_is_not() {
    let fake = Fake::start().await;
    for replays in [false, true] {
        let told = made(&fake, "refused", r#"{"template":"none"}"#).await;
        assert_eq!(told.code(404), "not_found");
        assert_eq!(is_replayed(&told), replays);
        // It is the answer to this request.
        let id = told.header("x-request-id").expect("it has an id");
        assert_eq!(told.json()["request_id"], id);
    }
    assert_eq!(fake.asked.all("CreateSandbox").len(), 1);
    for (template, status) in [("full", 503), ("busy", 409), ("often", 429)] {
        for _ in 0..2 {
            let before = fake.asked.all("SettleAnswer").len();
            let body = format!(r#"{{"template":"{template}"}}"#);
            let told = made(&fake, template, &body).await;
            assert_eq!(told.status, status, "{}", told.json());
            assert!(!is_replayed(&told));
            let settled = fake.asked.until_count("SettleAnswer", before + 1).await;
            let last = settled.last().expect("there is one");
            assert!(last.ends_with("answer: None }"), "{last}");
        }
    }
    assert_eq!(fake.asked.all("CreateSandbox").len(), 7);
}

#[tokio::test]
async fn a_request_that_is_being_carried_out_is_told_so_and_one_that_is_left_gives_its_key_back() {
    let fake = Fake::start().await;
    let path = format!("/v1/sandboxes/{}/execs", sandbox_id());
    let hold = r#"{"command":["hold"]}"#;
    let request = || keyed(&path, As::Owner, "once", hold);
    let waiting = tokio::spawn(fake.gateway.router().oneshot(request()));
    fake.asked.until("StartExec").await;
    let told = fake.send(request()).await;
    assert_eq!(told.code(409), "conflict");
    assert_eq!(told.header("retry-after"), Some("1"));
    waiting.abort();
    let settled = fake.asked.until("SettleAnswer").await;
    assert!(settled.contains("answer: None"), "{settled}");
    // The program was killed: the next one is another.
    fake.asked.until("FeedExec").await;
    let waiting = tokio::spawn(fake.gateway.router().oneshot(request()));
    fake.asked.until_count("StartExec", 2).await;
    waiting.abort();
}

#[tokio::test]
async fn an_answer_is_told_only_to_those_who_could_have_asked_for_it() {
    let fake = Fake::start().await;
    made(&fake, "once", "{}").await;
    let told = fake
        .send(keyed("/v1/sandboxes", As::Runner, "once", "{}"))
        .await;
    assert_eq!(told.code(403), "forbidden");
    let mut request = keyed("/v1/sandboxes", As::Owner, "once", "{}");
    request.headers_mut().remove("authorization");
    assert_eq!(fake.send(request).await.code(401), "unauthenticated");
}

#[tokio::test]
async fn the_token_of_a_key_is_not_kept() {
    let fake = Fake::start().await;
    let body = r#"{"name":"ci","scopes":["run"]}"#;
    let request = || keyed("/v1/keys", As::Admin, "once", body);
    let first = fake.send(request()).await;
    assert_eq!(first.status, 201);
    assert_eq!(first.json()["token"], "key-secret");
    let second = fake.send(request()).await;
    assert_eq!(second.code(409), "conflict");
    assert!(is_replayed(&second));
    let cause = second.json()["cause"].to_string();
    assert!(cause.contains("key-0000"), "{cause}");
    assert_eq!(fake.asked.all("MakeKey").len(), 1);
    let settled = fake.asked.until("SettleAnswer").await;
    let token = format!("{:?}", b"key-secret");
    let token = token.trim_matches(['[', ']']);
    assert!(!settled.contains(token), "{settled}");
}

#[tokio::test]
async fn an_answer_that_is_too_large_to_be_kept_is_told_once_and_done_once() {
    let fake = Fake::start().await;
    let path = format!("/v1/sandboxes/{}/execs", sandbox_id());
    let body = r#"{"command":["flood"]}"#;
    let first = fake.send(keyed(&path, As::Owner, "once", body)).await;
    assert_eq!(first.status, 200);
    let location = first.header("location").expect("it has a place");
    let second = fake.send(keyed(&path, As::Owner, "once", body)).await;
    assert_eq!(second.code(413), "too_large");
    let remedy = second.json()["remedy"].to_string();
    assert!(remedy.contains(location), "{remedy}");
    assert_eq!(fake.asked.all("StartExec").len(), 1);
}

#[tokio::test]
async fn a_repeated_request_is_counted_once_and_a_read_has_no_key() {
    let fake = Fake::start().await;
    made(&fake, "once", "{}").await;
    assert_eq!(fake.asked.all("FindKey").len(), 1);
    let request = head("GET", "/v1/sandboxes", As::Owner).header("idempotency-key", "once");
    let request = request.body(Body::empty());
    let told = fake.send(request.expect("it is a request")).await;
    assert_eq!((told.status.as_u16(), is_replayed(&told)), (200, false));
    assert_eq!(fake.asked.all("ReserveAnswer").len(), 1);
}

#[tokio::test]
async fn a_run_that_was_there_says_so() {
    let fake = Fake::start().await;
    for (key, expected) in [("first", false), ("again", true)] {
        let body = r#"{"lang":"bash","code":"true"}"#;
        let mut request = keyed("/v1/runs", As::Runner, key, body);
        let prefer = "respond-async".parse().expect("it is a value");
        request.headers_mut().insert("prefer", prefer);
        let told = fake.send(request).await;
        assert_eq!(told.status, 202, "{}", told.json());
        assert_eq!(is_replayed(&told), expected, "{key}");
    }
    // The run itself is what the key names.
    assert_eq!(fake.asked.all("ReserveAnswer").len(), 0);
}
