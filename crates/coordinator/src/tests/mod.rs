//! Runs in memory and on record, without hosts: nothing leaves the queue by itself.

mod ends;
mod room;
mod traces;

use std::path::Path;
use std::sync::Arc;

use firelane_model::id::RunId;
use firelane_store::bus::LocalBus;
use firelane_store::db::{AuditVerdict, Db};
use firelane_traces::Sink;
use firelane_wire::bus::{Caller, ListRuns, SubmitRun, Submitted};
use firelane_wire::event::End;
use firelane_wire::page::PageQuery;
use firelane_wire::problem::{Code, Problem};
use firelane_wire::run::RunState;

use crate::service::{Config, Coordinator};

/// Time enough for everything to be too old.
const YEAR_MS: i64 = 366 * 86_400_000;

async fn open(folder: &Path) -> (Arc<Coordinator>, Db) {
    let config = Config {
        queue: 1000,
        queue_per_tenant: 1000,
        traces: Sink::off(),
    };
    open_with(folder, config).await
}

async fn open_with(folder: &Path, config: Config) -> (Arc<Coordinator>, Db) {
    let db = Db::open(&folder.join("state.db")).await.unwrap();
    let coordinator = Coordinator::new(config, Arc::new(LocalBus::new()), db.clone()).await;
    (coordinator.unwrap(), db)
}

async fn submit(
    coordinator: &Arc<Coordinator>,
    tenant: &str,
    code: &str,
    durable: bool,
    key: Option<&str>,
) -> Result<Submitted, Problem> {
    let request = format!(r#"{{"lang":"python","code":"{code}","labels":{{"of":"a test"}}}}"#);
    let caller = Caller {
        tenant: tenant.into(),
        key: None,
        weight: 1,
        concurrency: None,
        cpu_us_per_day: None,
    };
    submit_as(coordinator, caller, &request, durable, key).await
}

async fn submit_as(
    coordinator: &Arc<Coordinator>,
    caller: Caller,
    request: &str,
    durable: bool,
    key: Option<&str>,
) -> Result<Submitted, Problem> {
    let call = SubmitRun {
        caller,
        request: serde_json::from_str(request).unwrap(),
        durable,
        idempotency_key: key.map(str::to_owned),
        traceparent: None,
    };
    Arc::clone(coordinator).submit(call).await
}

/// Ends a run that is queued; it leaves the memory when it is on record.
fn cancel(coordinator: &Arc<Coordinator>, id: RunId) {
    let entry = Arc::clone(&coordinator.state().runs[&id]);
    coordinator.state().queue.cancel(id).unwrap();
    coordinator.finish(&entry, &End::Cancelled);
}

/// All pages, each of so many.
async fn list(coordinator: &Arc<Coordinator>, state: Option<RunState>, limit: u32) -> Vec<RunId> {
    let mut ids = Vec::new();
    let mut cursor = None;
    loop {
        let call = ListRuns {
            tenant: "Build farm".into(),
            state,
            page: PageQuery {
                limit: Some(limit),
                cursor,
            },
        };
        let page = Arc::clone(coordinator).list(call).await.unwrap();
        assert!(page.items.len() <= limit as usize);
        for run in &page.items {
            assert_eq!(run.labels["of"], "a test");
        }
        ids.extend(page.items.iter().map(|run| run.id));
        cursor = page.next_cursor;
        if cursor.is_none() {
            return ids;
        }
    }
}

#[tokio::test]
async fn a_list_goes_on_from_memory_to_records_and_back() {
    let folder = tempfile::tempdir().unwrap();
    let (coordinator, _) = open(folder.path()).await;
    let (mut all, mut cancelled) = (Vec::new(), Vec::new());
    for number in 0..40 {
        // Of each kind some are durable, and some end; those that end are on record only.
        let run = submit(&coordinator, "Build farm", "1", number % 2 == 0, None).await;
        all.push(run.unwrap().id);
        submit(&coordinator, "other", "1", true, None)
            .await
            .unwrap();
    }
    for id in all.iter().skip(1).step_by(3).rev() {
        cancel(&coordinator, *id);
        cancelled.push(*id);
    }
    coordinator.settle().await;
    assert!(!coordinator.state().runs.contains_key(&cancelled[0]));
    all.reverse();
    let queued = all.iter().copied();
    let queued: Vec<_> = queued.filter(|id| !cancelled.contains(id)).collect();
    for limit in [1, 3, 7, 40, 200] {
        assert_eq!(list(&coordinator, None, limit).await, all);
        let found = list(&coordinator, Some(RunState::Queued), limit).await;
        assert_eq!(found, queued);
        let found = list(&coordinator, Some(RunState::Cancelled), limit).await;
        assert_eq!(found, cancelled);
    }
}

#[tokio::test]
async fn a_key_means_the_same_run_at_once_and_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (coordinator, db) = open(folder.path()).await;
    let again = || submit(&coordinator, "t", "1", true, Some("k"));
    let (one, two) = tokio::join!(again(), again());
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!(one.id, two.id);
    assert_ne!(one.replayed, two.replayed);
    assert_eq!(coordinator.state().runs.len(), 1);
    let other = submit(&coordinator, "t", "2", true, Some("k")).await;
    assert_eq!(other.unwrap_err().code, Code::KeyReused);
    coordinator.settle().await;
    // The run and its row of the audit came together, once.
    let verdict = db.audit_verify(None).await.unwrap();
    assert!(
        matches!(verdict, AuditVerdict::Whole(head) if head.seq == 1),
        "{verdict:?}"
    );
    db.close().await;

    let (coordinator, _) = open(folder.path()).await;
    coordinator.revive().await.unwrap();
    assert_eq!(coordinator.state().queue.len(), 1);
    let later = submit(&coordinator, "t", "1", true, Some("k")).await;
    assert_eq!(later.unwrap().id, one.id);
    cancel(&coordinator, one.id);
    coordinator.settle().await;
    let run = coordinator.recorded("t", one.id).await.unwrap();
    assert_eq!(run.state, RunState::Cancelled);
    let later = submit(&coordinator, "t", "1", true, Some("k")).await;
    assert_eq!(later.unwrap().id, one.id);
}

#[tokio::test]
async fn what_is_too_old_is_removed_and_what_waits_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let (coordinator, _) = open(folder.path()).await;
    let over = submit(&coordinator, "t", "1", false, None).await.unwrap();
    let waits = submit(&coordinator, "t", "1", true, Some("k"))
        .await
        .unwrap();
    cancel(&coordinator, over.id);
    coordinator.settle().await;
    let now = crate::records::now().as_millisecond();
    coordinator.prune_once(now).await.unwrap();
    coordinator.recorded("t", over.id).await.unwrap();
    coordinator.prune_once(now + YEAR_MS).await.unwrap();
    let gone = coordinator.recorded("t", over.id).await.unwrap_err();
    assert_eq!(gone.code, Code::NotFound);
    coordinator.recorded("t", waits.id).await.unwrap();
    let anew = submit(&coordinator, "t", "1", true, Some("k")).await;
    assert_ne!(anew.unwrap().id, waits.id);
}
