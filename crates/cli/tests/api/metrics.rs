//! `/metrics` and `docs/metrics.md` tell the same, and runs change what they tell.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use axum::http::StatusCode;
use firelane_traces::{Exporter, Limits, Span};
use firelane_wire::host::Pool;
use serde_json::{Value, json};

use crate::collector::{Collector, PATIENCE};
use crate::service::{Service, Setup};

/// Of each metric: its type, its labels, and the sum of its values.
type Seen = BTreeMap<String, (String, BTreeSet<String>, f64)>;

/// Reads the exposition; the value of a histogram is its count.
fn read(text: &str) -> Seen {
    let mut seen = Seen::new();
    let mut name = String::new();
    for line in text.lines().filter(|line| *line != "# EOF") {
        if let Some(typed) = line.strip_prefix("# TYPE ") {
            let (base, kind) = typed.split_once(' ').expect("a name and a type");
            name = match kind {
                "counter" => format!("{base}_total"),
                _ => base.to_owned(),
            };
            seen.insert(name.clone(), (kind.into(), BTreeSet::new(), 0.0));
        } else if !line.starts_with('#') {
            let (sample, value) = line.rsplit_once(' ').expect("a sample and a value");
            let (sample, labels) = sample.split_once('{').unwrap_or((sample, ""));
            let (_, all, sum) = seen.get_mut(&name).expect("its type is known");
            let labels = labels.trim_end_matches('}').split(',');
            let labels = labels.filter_map(|label| label.split_once('='));
            all.extend(
                labels
                    .map(|(label, _)| label.to_owned())
                    .filter(|label| label != "le"),
            );
            if !sample.ends_with("_bucket") && !sample.ends_with("_sum") {
                *sum += value.parse::<f64>().expect("a number");
            }
        }
    }
    seen
}

/// The rows of the document's table: name, type, labels.
fn documented() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let text = include_str!("../../../../docs/metrics.md");
    let rows = text.lines().filter(|line| line.starts_with("| `firelane_"));
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let labels = cells[3]
            .split(',')
            .map(|label| label.trim().trim_matches('`'));
        let labels = labels.filter(|label| !label.is_empty()).map(str::to_owned);
        let name = cells[1].trim_matches('`').to_owned();
        (name, (cells[2].to_owned(), labels.collect()))
    })
    .collect()
}

#[tokio::test]
async fn every_metric_is_documented_and_changes() {
    let collector = Collector::start().await;
    let limits = Limits {
        delay: Duration::ZERO,
        ..Limits::default()
    };
    let (traces, _exporter) = Exporter::start(&collector.endpoint, limits).expect("it is set up");
    let setup = Setup {
        queue: 1,
        queue_per_tenant: 1,
        traces: traces.clone(),
        ..Setup::default()
    };
    let service = Service::with(setup).await;
    let look = async || read(&service.get("/metrics").await);
    let before = look().await;
    traces.tell(vec![span()]);
    until_told(&service, "firelane_spans_exported_total").await;
    collector.refuse();

    let run = |code: &str| json!({"lang": "python", "code": code});
    let hold = async || service.post("/v1/runs", "respond-async", run("hold")).await;
    let (_, first) = hold().await;
    wait_for(&service, &first, "running").await;
    let (_, second) = hold().await;
    let (status, _) = hold().await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    let pool = Pool {
        template: "default".into(),
        lang: "python".into(),
        ready: 1,
        preparing: 2,
        min: 0,
        max: 4,
        hits: 3,
        misses: 4,
    };
    service.report(1, vec![pool]).await;
    let sandbox = service.make_sandbox().await;
    let while_held = look().await;
    service.destroy_sandbox(&sandbox).await;
    service.let_go.send_replace(true);
    for run in [&first, &second] {
        wait_for(&service, run, "done").await;
    }
    until_told(&service, "firelane_spans_dropped_total").await;
    service.report(2, Vec::new()).await;
    let after = look().await;

    let seen: BTreeMap<_, _> = while_held.iter().chain(&after).collect();
    let shown = seen
        .iter()
        .map(|(name, (kind, labels, _))| ((*name).clone(), (kind.clone(), labels.clone())));
    let mut shown: BTreeMap<_, _> = shown.collect();
    // After the last report there is no pool; its labels were there before.
    for (name, (_, labels, _)) in &while_held {
        shown
            .get_mut(name)
            .expect("it stays")
            .1
            .extend(labels.clone());
    }
    assert_eq!(shown, documented(), "docs/metrics.md on the right");
    for name in shown.keys() {
        let value = |seen: &Seen| seen.get(name).map_or(0.0, |(_, _, value)| *value);
        let values = [&before, &while_held, &after].map(value);
        let changed = values.windows(2).any(|pair| pair[0] != pair[1]);
        // The only host was there before.
        assert!(changed || name == "firelane_hosts", "{name}: {values:?}");
    }
    let value = |seen: &Seen, name: &str| seen[name].2;
    assert_eq!(value(&while_held, "firelane_queue_runs"), 1.0);
    assert_eq!(value(&while_held, "firelane_slots_used"), 1.0);
    assert_eq!(value(&while_held, "firelane_sandboxes"), 1.0);
    assert_eq!(value(&while_held, "firelane_sandboxes_created_total"), 1.0);
    assert_eq!(value(&after, "firelane_sandboxes"), 0.0);
    assert_eq!(value(&after, "firelane_sandboxes_ended_total"), 1.0);
    assert_eq!(value(&while_held, "firelane_pool_misses_total"), 4.0);
    assert_eq!(value(&after, "firelane_hosts"), 1.0);
    // The one that was turned away was never a run.
    assert_eq!(value(&after, "firelane_runs_total"), 2.0);
    assert_eq!(value(&after, "firelane_run_ready_seconds"), 2.0);
}

#[tokio::test]
async fn what_callers_write_is_no_label() {
    let service = Service::start(1, 10).await;
    service.get("/v1/secret-path").await;
    let body = json!({"lang": "ruby", "code": "1", "template": "secret-template",
        "labels": {"secret-label": "secret-value"}});
    service.post("/v1/runs", "", body).await;
    let text = service.get("/metrics").await;
    assert!(
        text.contains(r#"firelane_runs_total{state="done",lang="ruby"} 1"#),
        "{text}"
    );
    assert!(text.contains(r#"route="none""#), "{text}");
    assert!(!text.contains("secret"), "{text}");
}

/// A step of something that took no time.
fn span() -> Span {
    let at = SystemTime::UNIX_EPOCH;
    Span {
        trace_id: 1,
        id: 1,
        parent: None,
        name: "run".into(),
        start: at,
        end: at,
        attributes: Vec::new(),
        error: None,
    }
}

/// Asks until something was counted under that name.
async fn until_told(service: &Service, name: &str) {
    let waiting = async {
        while read(&service.get("/metrics").await)
            .get(name)
            .is_none_or(|seen| seen.2 == 0.0)
        {
            tokio::task::yield_now().await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, waiting).await;
    waited.unwrap_or_else(|_| panic!("nothing is counted under {name}"));
}

/// Asks until the run is in that state.
async fn wait_for(service: &Service, run: &Value, state: &str) {
    let path = format!("/v1/runs/{}", run["id"].as_str().expect("it has an id"));
    let waiting = async {
        loop {
            let run: Value = serde_json::from_str(&service.get(&path).await).expect("JSON");
            if run["state"] == state {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    let limit = Duration::from_secs(20);
    let waited = tokio::time::timeout(limit, waiting).await;
    waited.unwrap_or_else(|_| panic!("{run} is not {state}"));
}
