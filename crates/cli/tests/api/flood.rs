//! One who floods, and others who wait their turn. What is counted is the order in which the host is
//! given runs, never time.

use std::sync::Arc;

use axum::http::StatusCode;
use firelane_wire::key::Scope;
use serde_json::json;
use tokio::task::JoinSet;

use crate::service::{Service, Setup};

/// Requests that are under way at once.
const AT_ONCE: usize = 512;
const FLOOD: usize = 10_000;
const SHARE: usize = 5_000;
const OTHERS: usize = 20;

/// Asks for so many runs; how many were taken.
async fn ask(service: &Arc<Service>, token: &str, code: &str, count: usize) -> usize {
    let mut asking = JoinSet::new();
    let mut taken = 0;
    for number in 0..count + AT_ONCE {
        if number >= AT_ONCE
            && let Some(answered) = asking.join_next().await
        {
            match answered.expect("it is answered") {
                StatusCode::ACCEPTED => taken += 1,
                status => assert_eq!(status, StatusCode::TOO_MANY_REQUESTS),
            }
        }
        if number < count {
            let (service, token, code) = (Arc::clone(service), token.to_owned(), code.to_owned());
            asking.spawn(async move {
                let run = json!({"lang": "python", "code": code});
                service
                    .with_key(Some(&token), "/v1/runs", Some(run))
                    .await
                    .0
            });
        }
    }
    taken
}

#[tokio::test]
async fn a_flood_is_bounded_and_holds_up_nobody_else() {
    let setup = Setup {
        slots: 1,
        queue: 2 * SHARE,
        queue_per_tenant: SHARE,
        keys: true,
        ..Setup::default()
    };
    let service = Arc::new(Service::with(setup).await);
    let first = service.key_of("first", &[Scope::Run]).await.token;
    let flood = service.key_of("flood", &[Scope::Run]).await.token;
    let other = service.key_of("other", &[Scope::Run]).await.token;
    assert_eq!(ask(&service, &first, "hold", 1).await, 1);
    service.until_begun(1).await;
    assert_eq!(
        ask(&service, &flood, "flood", FLOOD).await,
        SHARE,
        "its share of the queue"
    );
    let run = json!({"lang": "python", "code": "other"});
    let (_, _, queued) = service.with_key(Some(&other), "/v1/runs", Some(run)).await;
    // It is one of two that take turns, however long the other's line is.
    assert!(
        queued["place"]["position"]
            .as_u64()
            .is_some_and(|ahead| ahead <= 1),
        "{queued}"
    );
    assert_eq!(ask(&service, &other, "other", OTHERS - 1).await, OTHERS - 1);
    // However long all that took.
    service.report(1, Vec::new()).await;
    service.let_go.send_replace(true);
    service.until_begun(1 + 2 * OTHERS + 1).await;
    let begun = service.begun.lock().expect("nobody panicked").clone();
    let (mut floods, mut others) = (0, 0);
    for (_, code) in begun.iter().skip(1) {
        match code.as_str() {
            "flood" => floods += 1,
            _ => others += 1,
        }
        assert!(
            floods <= others + 1 || others == OTHERS,
            "{floods} of the flood, {others} others"
        );
    }
    assert_eq!(others, OTHERS);
}
