//! A clock that jumps, as that of a machine which was suspended.

use std::time::Duration;

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::service::Service;

const DAY: Duration = Duration::from_secs(86_400);

/// All at once, without the steps between.
async fn jump() {
    tokio::time::pause();
    tokio::time::advance(DAY).await;
    tokio::time::resume();
}

async fn state(service: &Service, run: &Value) -> (Value, Value) {
    let path = format!("/v1/runs/{}", run["id"].as_str().expect("an id"));
    let looking = async {
        loop {
            let run: Value = serde_json::from_str(&service.get(&path).await).expect("JSON");
            if !["queued", "running"]
                .map(Value::from)
                .contains(&run["state"])
            {
                return run;
            }
            tokio::task::yield_now().await;
        }
    };
    let run = tokio::time::timeout(Duration::from_secs(20), looking).await;
    let mut run = run.expect("it ends");
    (run["state"].take(), run["problem"]["code"].take())
}

#[tokio::test]
async fn what_has_waited_too_long_expires_and_the_rest_goes_on() {
    let service = Service::start(1, 10).await;
    let run = |code: &str| json!({"lang": "python", "code": code});
    let (_, held) = service.post("/v1/runs", "respond-async", run("hold")).await;
    service.until_begun(1).await;
    let mut late = run("late");
    late["deadline_ms"] = json!(3_600_000);
    let (_, late) = service.post("/v1/runs", "respond-async", late).await;
    let (_, patient) = service
        .post("/v1/runs", "respond-async", run("patient"))
        .await;
    jump().await;
    // Its lease is over until it reports again; nothing that waits is lost by that.
    assert_eq!(
        state(&service, &late).await,
        ("expired".into(), "deadline_passed".into())
    );
    service.report(1, Vec::new()).await;
    service.let_go.send_replace(true);
    let (held, _) = state(&service, &held).await;
    assert!(
        held == "done" || held == "failed",
        "{held}: its host was silent for a day"
    );
    assert_eq!(state(&service, &patient).await.0, "done");
}

#[tokio::test]
async fn who_waits_for_a_run_that_expires_is_told() {
    let service = Service::start(0, 10).await;
    let run = json!({"lang": "python", "code": "1", "deadline_ms": 1});
    let (status, problem) = service.post("/v1/runs", "", run).await;
    assert_eq!(status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(problem["code"], "deadline_passed");
}
