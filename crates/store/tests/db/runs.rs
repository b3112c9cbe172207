//! The life of a run, as the database keeps it.

use firelane_store::db::{
    DbError, MAX_OUTCOME_BYTES, MAX_RUN_OUTPUT_BYTES, PageOf, RunEnd, RunState, Swap,
};

use crate::records::{Fixture, finish, part, run};

#[tokio::test]
async fn a_run_goes_from_queued_to_done() {
    let mut fixture = Fixture::new().await;
    let changes = fixture
        .db
        .write(|tx| {
            tx.insert_run(&run("r1"))?;
            let start = tx.start_run("r1", 0, 2_000)?;
            Ok([start, tx.finish_run(&finish("r1", 1, RunEnd::Done))?])
        })
        .await
        .unwrap();
    assert_eq!(changes, [Swap::Made; 2]);
    fixture.reopen().await;
    let (found, output) = fixture
        .db
        .read(|rx| {
            Ok((
                rx.run("r1")?,
                [0, 2, 3, 4, 5].map(|after| rx.run_output("r1", after)),
            ))
        })
        .await
        .unwrap();
    let (new, found) = (run("r1"), found.unwrap());
    let head = &found.head;
    assert_eq!(
        (&head.about, &head.tenant, &head.key_id),
        (&new.about, &new.tenant, &new.key_id)
    );
    assert_eq!(
        (head.durable, head.priority, head.deadline),
        (true, 5, Some(9_000))
    );
    assert_eq!((head.state, head.attempt), (RunState::Done, 1));
    assert_eq!(
        (head.created, head.started, head.finished),
        (1_000, Some(2_000), Some(3_000))
    );
    assert_eq!(found.spec, None);
    assert_eq!(head.outcome.as_deref(), Some(r#"{"exit_code":0}"#));
    let output = output.map(|part| part.unwrap().map(|part| part.events));
    let (first, second) = (Some(b"\0events\xff".to_vec()), Some(b"more".to_vec()));
    assert_eq!(output, [first.clone(), first, second.clone(), second, None]);
}

#[tokio::test]
async fn only_one_of_two_starts_holds() {
    let fixture = Fixture::new().await;
    let changes = fixture
        .db
        .write(|tx| {
            tx.insert_run(&run("r1"))?;
            let first = tx.start_run("r1", 0, 2_000)?;
            Ok((
                first,
                tx.start_run("r1", 0, 2_000)?,
                tx.start_run("no", 0, 1)?,
            ))
        })
        .await
        .unwrap();
    let refused = Swap::Refused {
        state: RunState::Running,
        attempt: 1,
    };
    assert_eq!(changes, (Swap::Made, refused, Swap::NotFound));
}

#[tokio::test]
async fn a_late_word_of_an_earlier_attempt_changes_nothing() {
    let fixture = Fixture::new().await;
    let late = fixture
        .db
        .write(|tx| {
            tx.insert_run(&run("r1"))?;
            tx.start_run("r1", 0, 2_000)?;
            assert_eq!(tx.requeue_run("r1", 1)?, Swap::Made);
            // Queued again: the first start does not hold any more, the second does.
            assert!(matches!(
                tx.start_run("r1", 0, 2_500)?,
                Swap::Refused { .. }
            ));
            assert_eq!(tx.start_run("r1", 1, 2_500)?, Swap::Made);
            assert!(matches!(tx.requeue_run("r1", 1)?, Swap::Refused { .. }));
            tx.finish_run(&finish("r1", 1, RunEnd::Failed))
        })
        .await
        .unwrap();
    let (state, attempt) = (RunState::Running, 2);
    assert_eq!(late, Swap::Refused { state, attempt });
    assert_eq!(
        fixture.db.read(|rx| rx.run_output("r1", 0)).await.unwrap(),
        None
    );
}

#[tokio::test]
async fn a_run_ends_once() {
    let fixture = Fixture::new().await;
    fixture
        .db
        .write(|tx| {
            for end in [
                RunEnd::Done,
                RunEnd::Failed,
                RunEnd::Cancelled,
                RunEnd::Expired,
            ] {
                let id = RunState::from(end).name();
                tx.insert_run(&run(id))?;
                assert_eq!(tx.finish_run(&finish(id, 0, end))?, Swap::Made);
                let refused = Swap::Refused {
                    state: end.into(),
                    attempt: 0,
                };
                assert_eq!(tx.finish_run(&finish(id, 0, RunEnd::Done))?, refused);
                assert_eq!(tx.cancel_run(id, 1)?, refused);
                assert_eq!(tx.start_run(id, 0, 1)?, refused);
                assert_eq!(tx.requeue_run(id, 0)?, refused);
            }
            Ok(())
        })
        .await
        .unwrap();
}

#[tokio::test]
async fn a_queued_run_is_cancelled_and_a_running_one_is_not() {
    let fixture = Fixture::new().await;
    let changes = fixture
        .db
        .write(|tx| {
            tx.insert_run(&run("queued"))?;
            tx.insert_run(&run("running"))?;
            tx.start_run("running", 0, 2_000)?;
            let queued = tx.cancel_run("queued", 2_500)?;
            Ok((queued, tx.cancel_run("running", 2_500)?, tx.run("queued")?))
        })
        .await
        .unwrap();
    let (queued, running, found) = changes;
    assert_eq!(queued, Swap::Made);
    let (state, attempt) = (RunState::Running, 1);
    assert_eq!(running, Swap::Refused { state, attempt });
    assert_eq!(found.unwrap().head.finished, Some(2_500));
}

#[tokio::test]
async fn lists_go_by_the_order_of_ids_whatever_the_clock_does() {
    let fixture = Fixture::new().await;
    fixture
        .db
        .write(|tx| {
            // Inserted last to first: a run that is not durable is inserted when it has ended.
            for i in (0..25_i64).rev() {
                let mut new = run(&format!("r{i:02}"));
                new.created = 1_000_000 - i;
                new.tenant = if i % 5 == 4 { "t2" } else { "t1" }.to_owned();
                tx.insert_run(&new)?;
            }
            tx.finish_run(&finish("r03", 0, RunEnd::Expired))?;
            tx.start_run("r06", 0, 1)
        })
        .await
        .unwrap();
    let mut listed: Vec<String> = Vec::new();
    let mut pages = 0;
    loop {
        let after = listed.last().cloned();
        let found = fixture
            .db
            .read(move |rx| rx.runs("t1", None, after.as_deref(), 6))
            .await
            .unwrap();
        if found.is_empty() {
            break;
        }
        pages += 1;
        listed.extend(found.into_iter().map(|head| head.id));
        // What comes meanwhile is not seen, and moves nothing.
        let id = format!("x{pages}");
        fixture
            .db
            .write(move |tx| tx.insert_run(&run(&id)))
            .await
            .unwrap();
    }
    let expected: Vec<_> = (0..25)
        .rev()
        .filter(|i| i % 5 != 4)
        .map(|i| format!("r{i:02}"))
        .collect();
    assert_eq!((listed, pages), (expected, 4));

    let (expired, unfinished) = fixture
        .db
        .read(|rx| {
            let expired = rx.runs("t1", Some(RunState::Expired), None, 10)?;
            Ok((expired, rx.unfinished_runs(PageOf::first(4))?))
        })
        .await
        .unwrap();
    assert_eq!(expired.len(), 1);
    let ids: Vec<_> = unfinished
        .items
        .iter()
        .map(|head| head.id.as_str())
        .collect();
    assert_eq!(ids, ["r24", "r23", "r22", "r21"]);
    let page = PageOf {
        after: unfinished.next,
        limit: 2,
    };
    let rest = fixture
        .db
        .read(move |rx| rx.unfinished_runs(page))
        .await
        .unwrap();
    let ids: Vec<_> = rest.items.iter().map(|head| head.id.as_str()).collect();
    assert_eq!(ids, ["r20", "r19"]);
}

#[tokio::test]
async fn old_runs_are_pruned_with_their_output_a_few_at_a_time() {
    let fixture = Fixture::new().await;
    let pruned = fixture
        .db
        .write(|tx| {
            for (i, finished) in [(0, 100), (1, 200), (2, 300), (3, 400)] {
                let id = format!("r{i}");
                tx.insert_run(&run(&id))?;
                let mut end = finish(&id, 0, RunEnd::Done);
                end.finished = finished;
                tx.finish_run(&end)?;
            }
            tx.insert_run(&run("waits"))?;
            Ok([
                tx.prune_runs(400, 2)?,
                tx.prune_runs(400, 2)?,
                tx.prune_runs(400, 2)?,
            ])
        })
        .await
        .unwrap();
    assert_eq!(pruned, [2, 1, 0]);
    let left = fixture
        .db
        .read(|rx| rx.runs("t1", None, None, 10))
        .await
        .unwrap();
    let ids: Vec<_> = left.iter().map(|head| head.id.as_str()).collect();
    assert_eq!(ids, ["waits", "r3"]);
    let file = rusqlite::Connection::open(&fixture.path).unwrap();
    let outputs: i64 = file
        .query_row("SELECT count(*) FROM run_outputs", [], |row| row.get(0))
        .unwrap();
    assert_eq!(outputs, 2, "the parts of one run");
}

#[tokio::test]
async fn an_end_that_is_too_large_changes_nothing() {
    let fixture = Fixture::new().await;
    fixture
        .db
        .write(|tx| tx.insert_run(&run("r1")))
        .await
        .unwrap();
    let mut outcome = finish("r1", 0, RunEnd::Done);
    outcome.outcome = Some("x".repeat(MAX_OUTCOME_BYTES + 1));
    let mut output = finish("r1", 0, RunEnd::Done);
    let half = vec![0; MAX_RUN_OUTPUT_BYTES / 2 + 1];
    output.output = vec![part(1, &half), part(2, &half)];
    for end in [outcome, output] {
        let error = fixture.db.write(move |tx| tx.finish_run(&end)).await;
        assert!(matches!(error, Err(DbError::TooLarge { .. })), "{error:?}");
    }
    let found = fixture.db.read(|rx| rx.run("r1")).await.unwrap();
    assert_eq!(found.unwrap().head.state, RunState::Queued);
}
