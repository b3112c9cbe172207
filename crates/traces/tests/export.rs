//! What is told arrives at a collector; without one nothing waits, and what is lost is counted.

mod collector;

use std::time::{Duration, SystemTime};

use collector::{Collector, PATIENCE, value};
use firelane_traces::{Exporter, Limits, Parent, Sink, Span};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::time::{Instant, timeout};

const TRACE: u128 = 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c;

/// Sent at once, and waited for longer than a test takes.
const LIMITS: Limits = Limits {
    traces: 100,
    delay: Duration::ZERO,
    export: PATIENCE,
};

fn span(id: u64) -> Span {
    let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    Span {
        trace_id: TRACE,
        id,
        parent: None,
        name: "run".into(),
        start,
        end: start + Duration::from_micros(1500),
        attributes: Vec::new(),
        error: None,
    }
}

/// What is counted: exported, dropped because it failed, dropped because there was no room.
fn counts(sink: &Sink) -> [u64; 3] {
    let mut registry = Registry::default();
    sink.register(&mut registry);
    let mut text = String::new();
    encode(&mut text, &registry).expect("it is text");
    let count = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.map_or(0, |number| number.trim().parse().expect("a number"))
    };
    [
        count("firelane_spans_exported_total"),
        count(r#"firelane_spans_dropped_total{reason="failed"}"#),
        count(r#"firelane_spans_dropped_total{reason="full"}"#),
    ]
}

/// Ends within the patience of a test, wherever the collector is.
async fn flush(exporter: Exporter) {
    let flushed = exporter.flush(Instant::now() + 2 * PATIENCE);
    timeout(PATIENCE, flushed).await.expect("it ends");
}

async fn until(sink: &Sink, expected: [u64; 3]) {
    let waiting = async {
        while counts(sink) != expected {
            tokio::task::yield_now().await;
        }
    };
    let waited = timeout(PATIENCE, waiting).await;
    waited.unwrap_or_else(|_| panic!("{:?}, not {expected:?}", counts(sink)));
}

#[tokio::test]
async fn what_is_told_arrives() {
    let collector = Collector::start().await;
    let (sink, exporter) = Exporter::start(&collector.endpoint, Limits::default()).unwrap();
    let root = Span {
        parent: Some(Parent::Caller(7)),
        attributes: vec![("lang", "python".into()), ("exit", 3.into())],
        error: Some("unavailable"),
        ..span(1)
    };
    let step = Span {
        parent: Some(Parent::Here(1)),
        name: "exec".into(),
        ..span(2)
    };
    sink.tell(vec![root.clone(), step]);
    // What was told before the end is sent at the end, without the delay.
    flush(exporter).await;
    assert_eq!(counts(&sink), [2, 0, 0]);

    let got = collector.until(|got| got.requests == 1).await;
    let [first, second] = &got.spans[..] else {
        panic!("{:?}", got.spans)
    };
    for span in [first, second] {
        assert_eq!(span.trace_id, TRACE.to_be_bytes());
        assert_eq!(span.start_time_unix_nano, 1_000_000_000_000_000_000);
        assert_eq!(span.end_time_unix_nano, 1_000_000_000_001_500_000);
    }
    assert_eq!((&*first.name, &*second.name), ("run", "exec"));
    assert_eq!(first.span_id, 1_u64.to_be_bytes());
    assert_eq!(first.parent_span_id, 7_u64.to_be_bytes());
    assert_eq!(second.parent_span_id, first.span_id);
    assert_eq!(first.kind, SpanKind::Server as i32);
    assert_eq!(second.kind, SpanKind::Internal as i32);
    assert_eq!(value(&first.attributes, "lang").as_deref(), Some("python"));
    assert_eq!(value(&first.attributes, "exit").as_deref(), Some("3"));
    let status = first.status.as_ref().expect("it failed");
    assert_eq!(status.message, "unavailable");
    let resource = got.resource.expect("it has one");
    let version = value(&resource.attributes, "service.version");
    assert_eq!(version.as_deref(), Some(env!("CARGO_PKG_VERSION")));
    // Who tells after the end is not held up either.
    sink.tell(vec![span(3)]);
    assert_eq!(counts(&sink), [2, 0, 1]);
}

#[tokio::test]
async fn a_collector_that_is_not_there_costs_only_the_spans() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let limits = Limits {
        // Time enough to connect, on a machine with other work.
        export: Duration::from_millis(500),
        ..LIMITS
    };
    let (sink, exporter) = Exporter::start(&endpoint.parse().unwrap(), limits).unwrap();
    sink.tell(vec![span(1), span(2)]);
    until(&sink, [0, 2, 0]).await;
    flush(exporter).await;
}

#[tokio::test]
async fn a_collector_that_hangs_is_given_up() {
    let collector = Collector::start().await;
    collector.hang();
    let limits = Limits {
        // Time enough to connect, on a machine with other work.
        export: Duration::from_millis(500),
        ..LIMITS
    };
    let (sink, exporter) = Exporter::start(&collector.endpoint, limits).unwrap();
    sink.tell(vec![span(1)]);
    until(&sink, [0, 1, 0]).await;
    // The next batch is tried all the same.
    sink.tell(vec![span(2)]);
    until(&sink, [0, 2, 0]).await;
    collector.until(|got| got.requests >= 2).await;
    flush(exporter).await;
}

#[tokio::test]
async fn the_end_does_not_wait_for_a_collector_that_hangs() {
    let collector = Collector::start().await;
    collector.hang();
    let limits = Limits {
        export: 10 * PATIENCE,
        ..LIMITS
    };
    let (sink, exporter) = Exporter::start(&collector.endpoint, limits).unwrap();
    sink.tell(vec![span(1)]);
    collector.until(|got| got.requests == 1).await;
    let flushed = exporter.flush(Instant::now() + Duration::from_millis(50));
    timeout(PATIENCE, flushed).await.expect("it ends");
    assert_eq!(counts(&sink), [0, 0, 0]);
}

#[tokio::test]
async fn what_the_queue_does_not_hold_is_dropped_and_counted() {
    let collector = Collector::start().await;
    let limits = Limits {
        traces: 2,
        ..LIMITS
    };
    let (sink, exporter) = Exporter::start(&collector.endpoint, limits).unwrap();
    // On this thread nobody reads before the next await.
    for id in 1..=5 {
        sink.tell(vec![span(2 * id), span(2 * id + 1)]);
    }
    assert_eq!(counts(&sink), [0, 0, 6]);
    flush(exporter).await;
    assert_eq!(counts(&sink), [4, 0, 6]);
    let got = collector.until(|got| got.requests > 0).await;
    let ids: Vec<&[u8]> = got.spans.iter().map(|span| &span.span_id[..]).collect();
    let expected = [2_u64, 3, 4, 5].map(u64::to_be_bytes);
    assert_eq!(ids, expected.each_ref().map(|id| &id[..]));
}

#[tokio::test]
async fn what_the_collector_refuses_is_not_sent_again() {
    let collector = Collector::start().await;
    collector.refuse();
    let (sink, exporter) = Exporter::start(&collector.endpoint, LIMITS).unwrap();
    sink.tell(vec![span(1)]);
    until(&sink, [0, 1, 0]).await;
    collector.take();
    sink.tell(vec![span(2)]);
    flush(exporter).await;
    assert_eq!(counts(&sink), [1, 1, 0]);
    let got = collector.until(|got| got.requests == 2).await;
    assert_eq!(got.spans.len(), 1);
    assert_eq!(got.spans[0].span_id, 2_u64.to_be_bytes());
}

#[tokio::test]
async fn more_than_a_batch_goes_in_several() {
    let collector = Collector::start().await;
    let limits = Limits {
        traces: 2000,
        ..LIMITS
    };
    let (sink, exporter) = Exporter::start(&collector.endpoint, limits).unwrap();
    for id in 1..=1200 {
        sink.tell(vec![span(id)]);
    }
    flush(exporter).await;
    assert_eq!(counts(&sink), [1200, 0, 0]);
    let got = collector.until(|got| got.spans.len() == 1200).await;
    assert!(got.requests >= 3, "{} requests", got.requests);
}

#[tokio::test]
async fn nothing_is_counted_where_nobody_reads() {
    let sink = Sink::off();
    sink.tell(vec![span(1)]);
    assert!(!sink.is_on());
    assert_eq!(counts(&sink), [0, 0, 0]);
}
