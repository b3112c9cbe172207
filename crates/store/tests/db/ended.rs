//! Runs that are over when they are put on record.

use firelane_store::db::{DbError, MAX_OUTCOME_BYTES, MAX_RUN_OUTPUT_BYTES, RunEnd, RunState};

use crate::records::{Fixture, finish, part, run};

#[tokio::test]
async fn one_that_is_over_is_kept_as_if_every_step_had_been() {
    let fixture = Fixture::new().await;
    for (number, end, started) in [
        (1, RunEnd::Done, Some(2_000)),
        (2, RunEnd::Failed, Some(2_000)),
        (3, RunEnd::Cancelled, None),
        (4, RunEnd::Expired, None),
    ] {
        let (steps, once) = (format!("steps{number}"), format!("once{number}"));
        let attempt = u32::from(started.is_some());
        let names = (steps.clone(), once.clone());
        let write = fixture.db.write(move |tx| {
            let (steps, once) = &names;
            tx.insert_run(&run(steps))?;
            if let Some(started) = started {
                tx.start_run(steps, 0, started)?;
            }
            tx.finish_run(&finish(steps, attempt, end))?;
            tx.insert_ended_run(&run(once), started, &finish(once, attempt, end))
        });
        write.await.unwrap();
        let read = fixture.db.read(move |rx| {
            let all = |id: &str| {
                let mut run = rx.run(id)?.unwrap();
                run.head.id.clear();
                let output = [0, 3, 5].map(|after| rx.run_output(id, after).unwrap());
                Ok::<_, DbError>((run, output))
            };
            Ok((all(&steps)?, all(&once)?))
        });
        let (steps, once) = read.await.unwrap();
        assert_eq!(steps, once);
        assert_eq!(once.0.head.state, RunState::from(end));
    }
}

#[tokio::test]
async fn one_that_is_there_already_or_is_too_large_leaves_nothing() {
    let fixture = Fixture::new().await;
    fixture
        .db
        .write(|tx| tx.insert_run(&run("r1")))
        .await
        .unwrap();
    let mut again = finish("r1", 1, RunEnd::Done);
    let insert = |id: &'static str, finish| {
        let insert = move |tx: &firelane_store::db::Writing<'_>| {
            tx.insert_ended_run(&run(id), Some(2_000), &finish)
        };
        fixture.db.write(insert)
    };
    let error = insert("r1", again.clone()).await.unwrap_err();
    assert!(matches!(error, DbError::Exists { .. }), "{error}");
    again.id = "r2".into();
    again.outcome = Some("x".repeat(MAX_OUTCOME_BYTES + 1));
    let error = insert("r2", again.clone()).await.unwrap_err();
    assert!(matches!(error, DbError::TooLarge { .. }), "{error}");
    again.outcome = None;
    again.output = vec![part(1, &vec![0; MAX_RUN_OUTPUT_BYTES + 1])];
    let error = insert("r2", again).await.unwrap_err();
    assert!(matches!(error, DbError::TooLarge { .. }), "{error}");
    let read = fixture.db.read(|rx| Ok((rx.run("r1")?, rx.run("r2")?)));
    let (first, second) = read.await.unwrap();
    assert_eq!(first.unwrap().head.state, RunState::Queued);
    assert_eq!(second, None);
}
