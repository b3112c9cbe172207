//! `POST /v1/runs:batch`.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::service::Service;

const PATH: &str = "/v1/runs:batch";

fn runs(codes: &[&str]) -> Value {
    let run = |code: &&str| json!({"lang": "python", "code": code});
    json!({"runs": codes.iter().map(run).collect::<Vec<_>>()})
}

#[tokio::test]
async fn outcomes_are_in_the_order_of_the_requests() {
    let service = Service::start(2, 10).await;
    let (status, batch) = service
        .post(PATH, "", runs(&["one", "break", "three"]))
        .await;
    assert_eq!(status, StatusCode::OK);
    let items = batch["runs"].as_array().expect("there are entries");
    assert_eq!(items.len(), 3, "{batch}");
    assert_eq!(items[0]["run"]["outcome"]["stdout"], "one");
    assert_eq!(items[1]["run"]["state"], "failed");
    assert_eq!(items[1]["run"]["problem"]["cause"], "the host broke");
    assert_eq!(items[2]["run"]["outcome"]["stdout"], "three");
}

#[tokio::test]
async fn one_that_is_wrong_keeps_all_from_being_queued() {
    let service = Service::start(1, 10).await;
    let mut body = runs(&["one", "two"]);
    body["runs"][1]["timeout_ms"] = json!(0);
    let (status, problem) = service.post(PATH, "", body).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let cause = problem["cause"].as_str().unwrap_or_default();
    assert!(cause.starts_with("runs[1]: timeout_ms"), "{problem}");
    let all: Value = serde_json::from_str(&service.get("/v1/runs").await).expect("JSON");
    assert_eq!(all["items"], json!([]));
}

#[tokio::test]
async fn a_batch_has_1_to_100_runs() {
    let service = Service::start(1, 1000).await;
    let check = async |count: usize, expected: StatusCode| {
        let (status, answer) = service.post(PATH, "", runs(&vec!["x"; count])).await;
        assert_eq!(status, expected, "{count}: {answer}");
    };
    check(0, StatusCode::BAD_REQUEST).await;
    check(1, StatusCode::OK).await;
    check(100, StatusCode::OK).await;
    check(101, StatusCode::BAD_REQUEST).await;
}

#[tokio::test]
async fn who_does_not_wait_gets_places_and_problems() {
    let service = Service::start(1, 2).await;
    // No host has a slot: all that are taken wait.
    service.report(0, Vec::new()).await;
    let body = runs(&["one", "two", "three"]);
    let (status, batch) = service.post(PATH, "respond-async", body).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    let states = |number: usize| &batch["runs"][number]["run"]["state"];
    assert_eq!([states(0), states(1)], ["queued", "queued"]);
    assert_eq!(batch["runs"][2]["run"], Value::Null);
    assert_eq!(batch["runs"][2]["problem"]["code"], "queue_full");
}

#[tokio::test]
async fn the_same_key_means_the_same_runs() {
    let service = Service::start(2, 10).await;
    let ask = async || {
        let request = axum::http::Request::post(PATH)
            .header("content-type", "application/json")
            .header("idempotency-key", "once")
            .body(runs(&["one", "two"]).to_string().into())
            .expect("it is a request");
        let answer = service.ask(request).await;
        let body = axum::body::to_bytes(answer.into_body(), 1 << 20).await;
        let batch: Value = serde_json::from_slice(&body.expect("a body")).expect("JSON");
        [0, 1].map(|number: usize| batch["runs"][number]["run"]["id"].clone())
    };
    let (first, second) = (ask().await, ask().await);
    assert_eq!(first, second);
    assert_ne!(first[0], first[1]);
}
