//! In, out, and who may not.

use axum::http::{Request, StatusCode};
use firelane_wire::key::{Rate, Scope};

use crate::fake::{Service, run};

#[tokio::test]
async fn without_a_session_every_page_leads_to_the_form() {
    let service = Service::start(true).await;
    for path in [
        "/",
        "/overview",
        "/runs/run-00000000000000000000000000000007",
    ] {
        let page = service.get(path, "").await;
        assert_eq!(page.status, StatusCode::SEE_OTHER, "{path}");
        assert_eq!(page.header("location"), "/login", "{path}");
    }
    let form = service.get("/login", "").await;
    assert_eq!(form.status, StatusCode::OK);
    assert!(form.text.contains("type=\"password\""));
}

#[tokio::test]
async fn a_key_begins_a_session_and_logging_out_ends_it() {
    let service = Service::start(true).await;
    let token = service.key(1, &[Scope::Run]);
    let begun = service.log_in(&token).await;
    assert_eq!(begun.status, StatusCode::SEE_OTHER);
    let cookie = begun.header("set-cookie");
    for word in ["HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=43200"] {
        assert!(cookie.contains(word), "{cookie}");
    }
    assert!(!cookie.contains("Secure"), "there is no TLS: {cookie}");
    assert!(!cookie.contains(&token[37..]), "the secret is not in it");
    let cookie = begun.cookie();
    assert_eq!(service.get("/", &cookie).await.status, StatusCode::OK);
    assert_eq!(
        service.get("/v1/queue", &cookie).await.status,
        StatusCode::OK
    );
    let form = service.get("/login", &cookie).await;
    assert_eq!(form.header("location"), "/", "it is not needed");

    let request = Request::post("/logout").header("cookie", &cookie);
    let out = service
        .ask(request.header("sec-fetch-site", "same-origin"), "")
        .await;
    assert_eq!(out.header("location"), "/login");
    assert!(out.header("set-cookie").contains("Max-Age=0"));
    let after = service.get("/v1/queue", &cookie).await;
    assert_eq!(after.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn all_tokens_that_are_not_taken_get_the_same_answer() {
    let service = Service::start(true).await;
    let token = service.key(1, &[Scope::Run]);
    let revoked = service.key(2, &[Scope::Run]);
    service.say(|said| said.keys[1].key.revoked_at = Some("2026-01-02T00:00:00Z".into()));
    let unknown = token.replace("key-0", "key-1");
    let wrong = token.replace("5a", "5b");
    let mut answers = Vec::new();
    for token in [&revoked, &unknown, &wrong, "", "nonsense"] {
        let answer = service.log_in(token).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{token}");
        assert_eq!(answer.header("set-cookie"), "", "{token}");
        answers.push(answer.text);
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
}

#[tokio::test]
async fn a_revoked_key_ends_its_sessions_at_once() {
    let service = Service::start(true).await;
    let token = service.key(1, &[Scope::Run]);
    let cookie = service.log_in(&token).await.cookie();
    service.say(|said| said.keys[0].key.revoked_at = Some("2026-01-02T00:00:00Z".into()));
    let page = service.get("/", &cookie).await;
    assert_eq!(page.header("location"), "/login");
    let api = service.get("/v1/queue", &cookie).await;
    assert_eq!(api.status, StatusCode::UNAUTHORIZED);
    // Not even if the key were to come back.
    service.say(|said| said.keys[0].key.revoked_at = None);
    let page = service.get("/", &cookie).await;
    assert_eq!(page.header("location"), "/login");
}

#[tokio::test]
async fn a_session_may_what_its_key_may_and_as_often() {
    let service = Service::start(true).await;
    let token = service.key(1, &[Scope::Template]);
    service.say(|said| said.runs.push(run(7)));
    let cookie = service.log_in(&token).await.cookie();
    let page = service.get("/", &cookie).await;
    assert!(page.text.contains("The key lacks the scope"));
    assert!(!page.text.contains("run-form"));
    let run = service
        .get("/runs/run-00000000000000000000000000000007", &cookie)
        .await;
    assert_eq!(run.status, StatusCode::FORBIDDEN);

    let one = 1.try_into().expect("it is not 0");
    let rate = Rate {
        requests: one,
        per_seconds: 3600.try_into().expect("it is not 0"),
    };
    service.say(|said| said.keys[0].key.limits.rate = Some(rate));
    let first = service.get("/v1/queue", &cookie).await;
    let second = service.get("/", &cookie).await;
    assert_eq!(first.status, StatusCode::OK);
    assert_eq!(second.status, StatusCode::TOO_MANY_REQUESTS);
    assert_ne!(second.header("retry-after"), "");
}

#[tokio::test]
async fn another_sites_page_gets_nothing_from_the_cookie() {
    let service = Service::start(true).await;
    let token = service.key(1, &[Scope::Admin]);
    let cookie = service.log_in(&token).await.cookie();
    let api = async |headers: &[(&str, &str)]| {
        let mut request = Request::post("/v1/keys").header("host", "here");
        request = request
            .header("cookie", &cookie)
            .header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        service.ask(request, "{}").await.status
    };
    for headers in [
        &[("sec-fetch-site", "cross-site")][..],
        &[("sec-fetch-site", "same-site"), ("origin", "http://here")],
        &[("origin", "http://elsewhere")],
        &[("origin", "null")],
        &[],
    ] {
        assert_eq!(api(headers).await, StatusCode::UNAUTHORIZED, "{headers:?}");
    }
    // The key is known: what is wrong is the body.
    let own = api(&[("sec-fetch-site", "same-origin")]).await;
    assert_eq!(own, StatusCode::BAD_REQUEST);
    assert_eq!(
        api(&[("origin", "http://here")]).await,
        StatusCode::BAD_REQUEST
    );
}

#[tokio::test]
async fn another_sites_form_neither_logs_in_nor_out() {
    let service = Service::start(true).await;
    let token = service.key(1, &[Scope::Run]);
    let cookie = service.log_in(&token).await.cookie();
    let site = "sec-fetch-site";
    let request = Request::post("/login").header(site, "cross-site");
    let refused = service.ask(request, &format!("key={token}")).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert_eq!(refused.header("set-cookie"), "");
    let request = Request::post("/logout")
        .header("cookie", &cookie)
        .header(site, "cross-site");
    assert_eq!(service.ask(request, "").await.status, StatusCode::FORBIDDEN);
    assert_eq!(service.get("/", &cookie).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_form_that_is_too_large_is_refused() {
    let service = Service::start(true).await;
    let refused = service.log_in(&"x".repeat(5 << 10)).await;
    assert_eq!(refused.status, StatusCode::PAYLOAD_TOO_LARGE);
}
