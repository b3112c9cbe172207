//! Who may ask for what: API keys, their scopes, and what belongs to others.

use std::collections::BTreeMap;

use axum::http::{HeaderMap, StatusCode};
use firelane_wire::key::Scope;
use serde_json::{Value, json};

use crate::service::{Service, Setup};

const RUNS: &str = "/v1/runs";

async fn start() -> Service {
    let setup = Setup {
        slots: 4,
        keys: true,
        ..Setup::default()
    };
    Service::with(setup).await
}

fn code(code: &str) -> Option<Value> {
    Some(json!({"lang": "python", "code": code}))
}

/// An answer without what differs from request to request.
fn comparable(
    (status, headers, mut problem): (StatusCode, HeaderMap, Value),
) -> (StatusCode, BTreeMap<String, String>, Value) {
    let fields = problem.as_object_mut().expect("an object");
    assert!(fields.remove("request_id").is_some());
    let headers = headers.iter().map(|(name, value)| {
        let value = match name.as_str() {
            "x-request-id" | "server-timing" => "differs",
            _ => value.to_str().expect("text"),
        };
        (name.to_string(), value.to_owned())
    });
    (status, headers.collect(), problem)
}

#[tokio::test]
async fn all_who_are_not_let_in_get_the_same_answer() {
    let service = start().await;
    let good = service.key_of("a", &[Scope::Run]).await;
    let revoked = service.key_of("b", &[Scope::Run]).await;
    service.revoke(revoked.key.id).await;
    let (id, secret) = good.token.split_once('.').expect("a token has a dot");
    let other = if secret.starts_with('0') { "1" } else { "0" };
    let wrong = format!("{id}.{other}{}", &secret[1..]);
    let unknown = format!("key-0198c0de0000700080000000c0ffee00.{secret}");
    for (path, body) in [("/v1/queue", None), (RUNS, code("1"))] {
        let without = service.with_key(None, path, body.clone()).await;
        let expected = comparable(without);
        assert_eq!(expected.0, StatusCode::UNAUTHORIZED);
        assert!(expected.1["www-authenticate"].starts_with("Bearer"));
        for token in [&wrong, &unknown, &revoked.token, "x", "x.y", id, ""] {
            let refused = service.with_key(Some(token), path, body.clone()).await;
            assert_eq!(comparable(refused), expected, "{token} at {path}");
        }
        let (status, ..) = service.with_key(Some(&good.token), path, body).await;
        assert!(status.is_success(), "{path}: {status}");
    }
    service.until_begun(1).await;
    assert_eq!(service.begun.lock().expect("nobody panicked").len(), 1);
}

#[tokio::test]
async fn a_key_does_what_its_scopes_say() {
    let service = start().await;
    let (run, sandbox, admin) = (
        service.key_of("r", &[Scope::Run]).await.token,
        service.key_of("s", &[Scope::Sandbox]).await.token,
        service.key_of("a", &[Scope::Admin]).await.token,
    );
    let template = service.key_of("t", &[Scope::Template]).await.token;
    let key = json!({"name": "x", "scopes": ["admin"]});
    // What may be asked for is refused for another reason.
    let build = json!({"name": "Not A Name"});
    for (token, expected) in [
        (&run, StatusCode::FORBIDDEN),
        (&sandbox, StatusCode::FORBIDDEN),
        (&template, StatusCode::BAD_REQUEST),
        (&admin, StatusCode::BAD_REQUEST),
    ] {
        let path = "/v1/templates";
        let (status, _, answer) = service
            .with_key(Some(token), path, Some(build.clone()))
            .await;
        assert_eq!(status, expected, "{answer}");
    }
    let check = async |token: &str, path: &str, body: Option<Value>, allowed: bool| {
        let (status, _, answer) = service.with_key(Some(token), path, body).await;
        match allowed {
            true => assert!(status.is_success(), "{path}: {answer}"),
            false => {
                assert_eq!(status, StatusCode::FORBIDDEN, "{path}: {answer}");
                assert_eq!(answer["code"], "forbidden");
                assert!(
                    answer["cause"]
                        .as_str()
                        .is_some_and(|cause| cause.contains("the scope '"))
                );
            }
        }
    };
    for (token, runs, keys) in [
        (&run, true, false),
        (&sandbox, false, false),
        (&admin, true, true),
    ] {
        check(token, RUNS, code("1"), runs).await;
        check(token, "/v1/keys", None, keys).await;
        check(token, "/v1/keys", Some(key.clone()), keys).await;
    }
    let (_, _, listed) = service.with_key(Some(&admin), "/v1/keys", None).await;
    let listed = listed.to_string();
    assert!(
        !listed.contains("token") && !listed.contains("secret"),
        "{listed}"
    );
}

#[tokio::test]
async fn what_belongs_to_another_tenant_is_not_there() {
    let service = start().await;
    let (one, two) = (
        service.key_of("one", &[Scope::Run]).await.token,
        service.key_of("two", &[Scope::Run]).await.token,
    );
    let (status, _, run) = service.with_key(Some(&one), RUNS, code("hold")).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    let id = run["id"].as_str().expect("an id");
    let absent = "run-0198c0de0000700080000000c0ffee00";
    for end in ["", "/events"] {
        let theirs = service
            .with_key(Some(&two), &format!("{RUNS}/{id}{end}"), None)
            .await;
        let nobodys = service
            .with_key(Some(&two), &format!("{RUNS}/{absent}{end}"), None)
            .await;
        let (theirs, nobodys) = (comparable(theirs), comparable(nobodys));
        assert_eq!(theirs.0, StatusCode::NOT_FOUND);
        let without = |answer: &Value, id: &str| answer.to_string().replace(id, "ID");
        assert_eq!(without(&theirs.2, id), without(&nobodys.2, absent));
    }
    let (_, _, listed) = service.with_key(Some(&two), RUNS, None).await;
    assert_eq!(listed["items"], json!([]));
    let (_, _, listed) = service.with_key(Some(&one), RUNS, None).await;
    assert_eq!(listed["items"][0]["id"], id);
    let (_, _, queue) = service.with_key(Some(&two), "/v1/queue", None).await;
    assert_eq!(queue["yours"], 0);
}
