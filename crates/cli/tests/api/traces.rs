//! The spans of runs and sandboxes, as a collector gets them; without one callers notice nothing.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use firelane_traces::{Exporter, Limits};
use http_body_util::BodyExt;
use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::{Instant, timeout};

use crate::collector::{Collector, PATIENCE, value};
use crate::service::{Service, Setup};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

/// A service, and what sends its spans to this collector.
async fn traced(collector: &Collector) -> (Service, Exporter) {
    let limits = Limits {
        delay: std::time::Duration::ZERO,
        ..Limits::default()
    };
    let (traces, exporter) = Exporter::start(&collector.endpoint, limits).expect("it is set up");
    let setup = Setup {
        traces,
        ..Setup::default()
    };
    (Service::with(setup).await, exporter)
}

/// Has something run for a caller with these headers `traceparent`.
async fn run(service: &Service, parents: &[&str], prefer: &str, run: Value) -> Value {
    let mut request = Request::post("/v1/runs")
        .header("content-type", "application/json")
        .header("prefer", prefer);
    for parent in parents {
        request = request.header("traceparent", *parent);
    }
    let request = request.body(Body::from(run.to_string()));
    let answer = service.ask(request.expect("it is a request")).await;
    assert!(answer.status().is_success(), "{}", answer.status());
    let body = answer.into_body().collect().await.expect("a whole body");
    serde_json::from_slice(&body.to_bytes()).expect("it is JSON")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn named<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    let found = spans.iter().find(|span| span.name == name);
    found.unwrap_or_else(|| panic!("no span {name}: {spans:?}"))
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|part| part == text.as_bytes())
}

#[tokio::test]
async fn a_run_is_a_trace_of_its_own() {
    let collector = Collector::start().await;
    let (service, _exporter) = traced(&collector).await;
    let secret = json!({"lang": "python", "code": "secret-code", "env": {"KEY": "secret-env"},
        "labels": {"label": "secret-label"}, "stdin": "secret-stdin", "args": ["secret-arg"]});
    let answer = run(&service, &[], "", secret).await;
    let id = answer["id"].as_str().expect("it has an id");
    let trace = answer["trace_id"].as_str().expect("it has a trace");
    assert_eq!(id, format!("run-{trace}"));

    let got = collector.until(|got| !got.spans.is_empty()).await;
    let spans = &got.spans;
    let names: Vec<&str> = spans.iter().map(|span| &*span.name).collect();
    assert_eq!(names, ["run", "queue", "claim", "exec"]);
    let root = named(spans, "run");
    assert!(root.parent_span_id.is_empty(), "{root:?}");
    for span in spans {
        assert_eq!(hex(&span.trace_id), trace);
        assert!(span.start_time_unix_nano <= span.end_time_unix_nano);
        assert!(root.start_time_unix_nano <= span.start_time_unix_nano);
        assert!(span.end_time_unix_nano <= root.end_time_unix_nano);
    }
    for pair in spans[1..].windows(2) {
        assert_eq!(pair[0].parent_span_id, root.span_id);
        assert_eq!(pair[1].parent_span_id, root.span_id);
        assert_ne!(pair[0].span_id, pair[1].span_id);
        assert!(pair[0].end_time_unix_nano <= pair[1].start_time_unix_nano);
    }
    let about = |key: &str| value(&root.attributes, key);
    for (key, expected) in [
        ("firelane.run.id", id),
        ("firelane.run.state", "done"),
        ("firelane.lang", "python"),
        ("firelane.template", "default"),
        ("firelane.origin", "pool"),
        ("host.name", "fake"),
        ("process.exit.code", "3"),
    ] {
        assert_eq!(about(key).as_deref(), Some(expected), "{key}");
    }
    assert!(!contains(&got.bytes, "secret"), "{spans:?}");
    // The test itself would find it.
    assert!(contains(&got.bytes, "python"));
}

#[tokio::test]
async fn a_run_is_a_part_of_the_callers_trace() {
    let collector = Collector::start().await;
    let (service, _exporter) = traced(&collector).await;
    let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let code = json!({"lang": "bash", "code": "1"});
    let answer = run(&service, &[&parent], "respond-async", code.clone()).await;
    assert_eq!(answer["trace_id"], TRACE);
    let got = collector.until(|got| !got.spans.is_empty()).await;
    let root = named(&got.spans, "run");
    assert_eq!(hex(&root.parent_span_id), "00f067aa0ba902b7");
    assert!(got.spans.iter().all(|span| hex(&span.trace_id) == TRACE));
    assert_eq!(named(&got.spans, "exec").parent_span_id, root.span_id);
    let id = value(&root.attributes, "firelane.run.id");
    assert_eq!(id.as_deref(), answer["id"].as_str());
    // So is each run of a batch.
    let batch = Request::post("/v1/runs:batch")
        .header("content-type", "application/json")
        .header("traceparent", &parent)
        .body(Body::from(json!({"runs": [code, code]}).to_string()));
    let answer = service.ask(batch.expect("it is a request")).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let roots = |spans: &[Span]| spans.iter().filter(|span| span.name == "run").count();
    let got = collector.until(|got| roots(&got.spans) == 3).await;
    assert!(got.spans.iter().all(|span| hex(&span.trace_id) == TRACE));
}

#[tokio::test]
async fn what_is_no_traceparent_is_ignored() {
    let collector = Collector::start().await;
    let (service, _exporter) = traced(&collector).await;
    let good = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let bad = format!("00-{TRACE}-0000000000000000-01");
    for parents in [&[bad.as_str()][..], &["what"], &[""], &[&good, &good]] {
        let code = json!({"lang": "python", "code": "1"});
        let answer = run(&service, parents, "", code).await;
        let trace = answer["trace_id"].as_str().expect("it has a trace");
        assert_eq!(answer["id"], format!("run-{trace}"), "{parents:?}");
        let of_this = |span: &Span| hex(&span.trace_id) == trace && span.name == "run";
        let got = collector.until(|got| got.spans.iter().any(of_this)).await;
        let root = got.spans.iter().find(|span| of_this(span));
        assert!(root.is_some_and(|root| root.parent_span_id.is_empty()));
    }
}

#[tokio::test]
async fn who_does_not_record_its_own_spans_gets_none_of_ours() {
    let collector = Collector::start().await;
    let (service, exporter) = traced(&collector).await;
    let code = json!({"lang": "python", "code": "1"});
    let parent = format!("00-{TRACE}-00f067aa0ba902b7-00");
    let answer = run(&service, &[&parent], "", code.clone()).await;
    assert_eq!(answer["trace_id"], TRACE);
    let other = run(&service, &[], "", code).await;
    exporter.flush(Instant::now() + PATIENCE).await;
    let got = collector.until(|got| !got.spans.is_empty()).await;
    let trace = other["trace_id"].as_str().expect("it has a trace");
    assert!(got.spans.iter().all(|span| hex(&span.trace_id) == trace));
}

#[tokio::test]
async fn a_run_that_failed_says_of_what_kind_that_was() {
    let collector = Collector::start().await;
    let (service, _exporter) = traced(&collector).await;
    let run = json!({"lang": "python", "code": "break", "template": "secret-template"});
    let (status, _) = service.post("/v1/runs", "", run).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    let got = collector.until(|got| !got.spans.is_empty()).await;
    let root = named(&got.spans, "run");
    let error = value(&root.attributes, "error.type");
    assert_eq!(error.as_deref(), Some("internal"));
    let state = value(&root.attributes, "firelane.run.state");
    assert_eq!(state.as_deref(), Some("failed"));
    assert!(!contains(&got.bytes, "the host broke"));
    // There need not be such a template: it is a text of the caller's.
    assert!(!contains(&got.bytes, "secret"));
}

#[tokio::test]
async fn without_a_collector_callers_notice_nothing() {
    let collector = Collector::start().await;
    let nowhere = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let endpoint = format!("http://{}", nowhere.local_addr().expect("it has one"));
    drop(nowhere);
    let gone = endpoint.parse().expect("it is a URL");
    collector.hang();
    for endpoint in [&gone, &collector.endpoint] {
        let limits = Limits {
            traces: 1,
            ..Limits::default()
        };
        let (traces, exporter) = Exporter::start(endpoint, limits).expect("it is set up");
        let setup = Setup {
            traces,
            ..Setup::default()
        };
        let service = Service::with(setup).await;
        for _ in 0..20 {
            let code = json!({"lang": "python", "code": "1"});
            let answer = run(&service, &[], "", code).await;
            assert_eq!(answer["outcome"]["exit_code"], 3);
        }
        timeout(PATIENCE, exporter.flush(Instant::now()))
            .await
            .expect("it ends");
    }
}

/// Asks for something of a sandbox, for a caller with this `traceparent`.
async fn ask(
    service: &Service,
    method: &str,
    path: &str,
    parent: Option<&str>,
    body: Value,
) -> StatusCode {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/json");
    if let Some(parent) = parent {
        request = request.header("traceparent", parent);
    }
    let request = request.body(Body::from(body.to_string()));
    let answer = service.ask(request.expect("it is a request")).await;
    answer.status()
}

#[tokio::test]
async fn what_is_asked_of_a_sandbox_is_a_part_of_its_trace() {
    let collector = Collector::start().await;
    let (service, _exporter) = traced(&collector).await;
    let labels = json!({"labels": {"label": "secret-label"}});
    let (status, sandbox) = service.post("/v1/sandboxes", "", labels).await;
    assert_eq!(status, StatusCode::CREATED, "{sandbox}");
    let id = sandbox["id"].as_str().expect("it has an id");
    let trace = id.strip_prefix("sbx-").expect("it is a sandbox's");
    let here = format!("/v1/sandboxes/{id}");
    let exec = json!({"lang": "python", "code": "secret-code"});
    let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let silent = format!("00-{TRACE}-00f067aa0ba902b7-00");
    let execs = format!("{here}/execs");
    let pause = format!("{here}:pause");
    let file = format!("{here}/files/secret-file");
    for (method, path, parent, body) in [
        ("POST", &execs, None, exec),
        ("POST", &pause, Some(&parent), json!({})),
        ("POST", &pause, Some(&silent), json!({})),
        ("GET", &file, None, json!({})),
        ("DELETE", &here, None, json!({})),
    ] {
        let parent = parent.map(String::as_str);
        let status = ask(&service, method, path, parent, body).await;
        assert!(!status.is_server_error(), "{method} {path}: {status}");
    }
    let got = collector
        .until(|got| {
            got.spans
                .iter()
                .any(|span| span.name == "DELETE /v1/sandboxes/{id}")
        })
        .await;
    let root = named(&got.spans, "sandbox");
    assert!(root.parent_span_id.is_empty(), "{root:?}");
    let about = |key: &str| value(&root.attributes, key);
    assert_eq!(about("firelane.sandbox.id").as_deref(), Some(id));
    assert_eq!(about("firelane.sandbox.reason").as_deref(), Some("asked"));
    assert_eq!(about("firelane.template").as_deref(), Some("default"));
    for name in [
        "POST /v1/sandboxes",
        "POST /v1/sandboxes/{id}/execs",
        "DELETE /v1/sandboxes/{id}",
    ] {
        let span = named(&got.spans, name);
        assert_eq!(span.parent_span_id, root.span_id, "{name}");
        assert_eq!(hex(&span.trace_id), trace, "{name}");
        let of = value(&span.attributes, "firelane.sandbox.id");
        assert_eq!(of.as_deref(), Some(id), "{name}");
    }
    // One was asked for by a caller that has a trace, one by a caller that wants none.
    let paused: Vec<&Span> = got
        .spans
        .iter()
        .filter(|span| span.name == "POST /v1/sandboxes/{id}:pause")
        .collect();
    assert_eq!(paused.len(), 1, "{paused:?}");
    assert_eq!(hex(&paused[0].trace_id), TRACE);
    assert_eq!(hex(&paused[0].parent_span_id), "00f067aa0ba902b7");
    assert!(!contains(&got.bytes, "secret"), "{:?}", got.spans);
}

#[tokio::test]
async fn who_asks_for_a_sandbox_that_is_not_theirs_adds_nothing_to_its_trace() {
    let collector = Collector::start().await;
    let (service, exporter) = traced(&collector).await;
    let unknown = format!("/v1/sandboxes/sbx-{TRACE}");
    for (method, path) in [
        ("GET", unknown.clone()),
        ("DELETE", unknown.clone()),
        ("POST", format!("{unknown}:brew")),
        ("GET", "/v1/sandboxes".to_owned()),
    ] {
        ask(&service, method, &path, None, json!({})).await;
    }
    let run = run(&service, &[], "", json!({"lang": "python", "code": "1"})).await;
    exporter.flush(Instant::now() + PATIENCE).await;
    let got = collector.until(|got| !got.spans.is_empty()).await;
    let trace = run["trace_id"].as_str().expect("it has a trace");
    let others = got.spans.iter().filter(|span| hex(&span.trace_id) != trace);
    assert_eq!(others.count(), 0, "{:?}", got.spans);
}
