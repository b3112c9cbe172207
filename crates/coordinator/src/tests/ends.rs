//! What can be read of a run that is over.

use std::sync::Arc;

use firelane_model::id::RunId;
use firelane_wire::bus::{AwaitRun, Caller};
use firelane_wire::event::{End, Event, ReadLog};
use firelane_wire::problem::Code;
use firelane_wire::run::RunState;

use super::{cancel, open, submit, submit_as};

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_run_that_expires_is_told_the_deadline() {
    let folder = tempfile::tempdir().unwrap();
    let (coordinator, _) = open(folder.path()).await;
    let _serving = coordinator.serve().await.unwrap();
    let caller = Caller {
        tenant: "t".into(),
        key: None,
        weight: 1,
        concurrency: None,
        cpu_us_per_day: None,
    };
    let request = r#"{"lang":"python","code":"1","deadline_ms":5}"#;
    let run = submit_as(&coordinator, caller, request, false, None)
        .await
        .unwrap();
    let entry = coordinator
        .state()
        .runs
        .get(&run.id)
        .map(Arc::clone)
        .unwrap();
    let read = ReadLog {
        after: 0,
        max_bytes: 1,
        wait_ms: 20_000,
        whole: true,
    };
    assert!(entry.log.read(read).await.end);
    let shown = entry.shown(None);
    assert_eq!(shown.state, RunState::Expired);
    assert_eq!(
        shown.problem.map(|problem| problem.code),
        Some(Code::DeadlinePassed)
    );
    coordinator.stop.cancel();
    coordinator.settle().await;
    let recorded = coordinator.recorded("t", run.id).await.unwrap();
    assert_eq!(recorded.problem.map(|problem| problem.status()), Some(504));
}

#[tokio::test]
async fn the_last_part_of_a_log_brings_the_run_from_memory_and_from_its_record() {
    let folder = tempfile::tempdir().unwrap();
    let (coordinator, _) = open(folder.path()).await;
    let run = submit(&coordinator, "t", "1", false, None).await.unwrap();
    let entry = Arc::clone(&coordinator.state().runs[&run.id]);
    entry.log.append(Event::Stdout(b"one".into()));
    let read = |after| {
        let call = AwaitRun {
            tenant: "t".into(),
            id: run.id,
            read: ReadLog {
                after,
                max_bytes: 1,
                wait_ms: 0,
                whole: false,
            },
        };
        Arc::clone(&coordinator).read_to_end(call)
    };
    let first = read(0).await.unwrap();
    assert_eq!((first.page.events.len(), first.run), (1, None));
    coordinator.state().queue.cancel(run.id);
    let waiting = read(1);
    coordinator.finish(&entry, &End::Cancelled);
    // Whether it is still in memory or on record by now.
    let last = waiting.await.unwrap();
    assert_eq!((last.page.events.len(), last.page.end), (1, true));
    coordinator.settle().await;
    assert!(coordinator.state().runs.is_empty());
    let recorded = read(1).await.unwrap();
    assert_eq!(recorded, last);
    assert_eq!(recorded.run.unwrap().state, RunState::Cancelled);
    let other = AwaitRun {
        tenant: "other".into(),
        id: run.id,
        read: read_all(),
    };
    let refused = Arc::clone(&coordinator).read_to_end(other).await;
    assert_eq!(refused.unwrap_err().code, Code::NotFound);
}

const fn read_all() -> ReadLog {
    ReadLog {
        after: 0,
        max_bytes: u64::MAX,
        wait_ms: 0,
        whole: true,
    }
}

#[tokio::test]
async fn a_recorded_log_is_read_a_part_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let (coordinator, db) = open(folder.path()).await;
    let run = submit(&coordinator, "t", "1", false, None).await.unwrap();
    let entry = coordinator
        .state()
        .runs
        .get(&run.id)
        .map(Arc::clone)
        .unwrap();
    for number in 0..100_u8 {
        entry.log.append(Event::Stdout(vec![number; 40_000]));
    }
    cancel(&coordinator, run.id);
    coordinator.settle().await;

    let (mut after, mut parts) = (0, 0);
    let name = run.id.to_string();
    loop {
        let name = name.clone();
        let Some(part) = db
            .read(move |rx| rx.run_output(&name, after))
            .await
            .unwrap()
        else {
            break;
        };
        assert!(part.events.len() < 300_000, "{}", part.events.len());
        (after, parts) = (part.last, parts + 1);
    }
    assert_eq!((after, parts), (101, 17));
    // Pages of any size have everything once and in order.
    for max_bytes in [1, 50_000, 300_000, u64::MAX] {
        let mut read = ReadLog {
            after: 0,
            max_bytes,
            wait_ms: 0,
            whole: false,
        };
        loop {
            let page = coordinator.recorded_log(run.id, read).await.unwrap();
            for (number, event) in page.events {
                assert_eq!(number, read.after + 1);
                match event {
                    Event::Stdout(bytes) => {
                        assert_eq!((u64::from(bytes[0]), bytes.len()), (number - 1, 40_000));
                    }
                    Event::Ended(end) => assert_eq!((*end, number), (End::Cancelled, 101)),
                    other => panic!("{other:?}"),
                }
                read.after = number;
            }
            if page.end {
                break;
            }
        }
        assert_eq!(read.after, 101);
    }
    let unknown = RunId::from_bits(1);
    let read = ReadLog {
        after: 0,
        max_bytes: 1,
        wait_ms: 0,
        whole: false,
    };
    let missing = coordinator.recorded_log(unknown, read).await.unwrap_err();
    assert_eq!(missing.code, Code::NotFound);
}
