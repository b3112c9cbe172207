//! What runs used that did not come to their end.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use serde_json::{Value, json};

use crate::service::Service;

#[tokio::test]
async fn a_run_that_was_cancelled_has_used_the_time_that_it_had() {
    let service = Service::start(1, 10).await;
    let hold = json!({"lang": "python", "code": "hold"});
    let (_, run) = service.post("/v1/runs", "respond-async", hold).await;
    service.until_begun(1).await;
    let path = format!("/v1/runs/{}", run["id"].as_str().expect("an id"));
    let cancel = Request::delete(path).body(Body::empty());
    let answer = service.ask(cancel.expect("a request")).await;
    assert!(answer.status() < StatusCode::BAD_REQUEST, "{answer:?}");
    let looking = async {
        loop {
            let usage: Value = serde_json::from_str(&service.get("/v1/usage").await).expect("JSON");
            if usage["days"][0]["runs"] == 1 {
                return usage;
            }
            tokio::task::yield_now().await;
        }
    };
    let usage = tokio::time::timeout(Duration::from_secs(20), looking).await;
    let usage = usage.expect("it is on record");
    let day = &usage["days"][0];
    assert!(
        day["wall_seconds"].as_f64().is_some_and(|wall| wall > 0.0),
        "{usage}"
    );
    // Nobody measured it.
    assert_eq!(day["cpu_seconds"], 0.0);
}
