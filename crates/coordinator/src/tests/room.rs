//! Room in the queue, and who meets no limit.

use std::sync::Arc;

use firelane_model::id::KeyId;
use firelane_store::db::AuditVerdict;
use firelane_traces::Sink;
use firelane_wire::bus::Caller;
use firelane_wire::problem::Code;

use super::{cancel, list, open, open_with, submit, submit_as};
use crate::service::Config;

fn small(queue: usize) -> Config {
    Config {
        queue,
        queue_per_tenant: queue,
        traces: Sink::off(),
    }
}

#[tokio::test]
async fn what_finds_no_room_leaves_nothing_and_may_come_again() {
    let folder = tempfile::tempdir().unwrap();
    let (coordinator, db) = open_with(folder.path(), small(1)).await;
    let waits = submit(&coordinator, "Build farm", "1", true, None)
        .await
        .unwrap();
    let full = submit(&coordinator, "Build farm", "2", true, Some("k"))
        .await
        .unwrap_err();
    assert_eq!(full.code, Code::QueueFull);
    assert!(full.cause.ends_with("no host serves any now"), "{full}");
    coordinator.settle().await;
    assert_eq!(list(&coordinator, None, 10).await, [waits.id]);
    let verdict = db.audit_verify(None).await.unwrap();
    assert!(
        matches!(verdict, AuditVerdict::Whole(head) if head.seq == 1),
        "{verdict:?}"
    );
    cancel(&coordinator, waits.id);
    let again = submit(&coordinator, "Build farm", "2", true, Some("k"))
        .await
        .unwrap();
    assert!(!again.replayed);
    assert_eq!(coordinator.state().queue.len(), 1);
}

#[tokio::test]
async fn those_that_come_at_once_are_no_more_than_there_is_room_for() {
    let folder = tempfile::tempdir().unwrap();
    let (coordinator, _) = open_with(folder.path(), small(2)).await;
    let mut coming = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let coordinator = Arc::clone(&coordinator);
        coming.spawn(async move { submit(&coordinator, "Build farm", "1", true, None).await });
    }
    let taken = coming.join_all().await;
    let taken = taken.iter().filter(|taken| taken.is_ok()).count();
    assert_eq!((taken, list(&coordinator, None, 10).await.len()), (2, 2));
}

#[tokio::test]
async fn who_only_asks_again_meets_no_limit() {
    let folder = tempfile::tempdir().unwrap();
    let (coordinator, _) = open_with(folder.path(), small(1)).await;
    let caller = || Caller {
        tenant: "t".into(),
        key: Some(KeyId::from_bits(1)),
        weight: 1,
        concurrency: Some(1),
        cpu_us_per_day: None,
    };
    let request = r#"{"lang":"python","code":"1"}"#;
    let first = submit_as(&coordinator, caller(), request, true, Some("k"))
        .await
        .unwrap();
    let again = submit_as(&coordinator, caller(), request, true, Some("k"))
        .await
        .unwrap();
    assert_eq!((again.id, again.replayed), (first.id, true));
    let other = submit_as(&coordinator, caller(), request, true, None).await;
    assert_eq!(other.unwrap_err().code, Code::QueueFull);
    let other = r#"{"lang":"python","code":"2"}"#;
    let other = submit_as(&coordinator, caller(), other, true, Some("k")).await;
    assert_eq!(other.unwrap_err().code, Code::KeyReused);
}

#[tokio::test]
async fn large_requests_fill_the_queue_by_their_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let (coordinator, _) = open(folder.path()).await;
    let code = "#".repeat(1_000_000);
    let mut ids = Vec::new();
    let full = loop {
        match submit(&coordinator, "large", &code, false, None).await {
            Ok(taken) => ids.push(taken.id),
            Err(problem) => break problem,
        }
    };
    assert_eq!(full.code, Code::QueueFull);
    assert!(
        full.cause.contains("bytes of this tenant's requests wait"),
        "{full}"
    );
    // 64 MiB.
    assert_eq!(ids.len(), 67);
    submit(&coordinator, "small", "1", false, None)
        .await
        .unwrap();
    cancel(&coordinator, ids[0]);
    submit(&coordinator, "large", &code, false, None)
        .await
        .unwrap();
}

#[tokio::test]
async fn ten_thousand_small_runs_wait_in_little_memory() {
    let folder = tempfile::tempdir().unwrap();
    let (coordinator, _) = open_with(folder.path(), small(10_000)).await;
    let before = resident();
    for _ in 0..10_000 {
        submit(&coordinator, "t", "print(6*7)", false, None)
            .await
            .unwrap();
    }
    let grown = resident().saturating_sub(before);
    // Other tests of this process are in this number too.
    assert!(grown <= 100 << 20, "{grown} bytes for 10,000 runs");
    println!("{grown} bytes for 10,000 runs");
    assert_eq!(coordinator.state().queue.len(), 10_000);
}

/// Memory of this process. Source: proc(5), `statm`.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * rustix::param::page_size() as u64
}
