//! Group commit.

use firelane_store::db::{Class, DbError, MAX_JSON_BYTES, PageOf};
use tokio::task::JoinSet;

use crate::records::{Fixture, key, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_that_come_together_succeed_and_fail_each_alone() {
    let fixture = Fixture::new().await;
    let mut callers = JoinSet::new();
    for i in 0..600 {
        let db = fixture.db.clone();
        callers.spawn(async move {
            // Two of three have a name of their own.
            let id = if i % 3 == 0 {
                "taken".to_owned()
            } else {
                format!("r{i}")
            };
            let result = db.write(move |tx| {
                tx.insert_key(&key(&format!("k{i}"), "t1"))?;
                tx.insert_run(&run(&id))
            });
            (i, result.await)
        });
    }
    let mut first = 0;
    while let Some(done) = callers.join_next().await {
        let (i, result) = done.unwrap();
        match result {
            Ok(()) if i % 3 == 0 => first += 1,
            Ok(()) => {}
            Err(error) => {
                assert!(i % 3 == 0 && error.class() == Class::Conflict, "{error}");
                // What it did before it failed is undone.
                let key = fixture.db.read(move |rx| rx.key(&format!("k{i}")));
                assert!(key.await.unwrap().is_none());
            }
        }
    }
    assert_eq!(first, 1);
    let page = fixture
        .db
        .read(|rx| rx.unfinished_runs(PageOf::first(500)))
        .await
        .unwrap();
    assert_eq!(page.items.len(), 401);
}

#[tokio::test]
async fn a_job_that_panics_is_undone_and_the_writer_goes_on() {
    let fixture = Fixture::new().await;
    let db = fixture.db.clone();
    let panicking = tokio::spawn(async move {
        db.write(|tx| -> Result<(), DbError> {
            tx.insert_run(&run("r1"))?;
            panic!("as the test asks")
        })
        .await
    });
    assert!(panicking.await.unwrap_err().is_panic());
    let db = fixture.db.clone();
    let panicking = tokio::spawn(async move {
        db.read(|_| -> Result<(), DbError> { panic!("as the test asks") })
            .await
    });
    assert!(panicking.await.unwrap_err().is_panic());
    fixture
        .db
        .write(|tx| tx.insert_run(&run("r1")))
        .await
        .unwrap();
    let found = fixture.db.read(|rx| rx.run("r1")).await.unwrap();
    assert!(found.is_some());
}

#[tokio::test]
async fn a_write_is_carried_out_though_its_caller_left() {
    let fixture = Fixture::new().await;
    {
        let left = fixture.db.write(|tx| tx.insert_run(&run("r1")));
        // One look, which sends it.
        let _ = tokio::time::timeout(std::time::Duration::ZERO, left).await;
    }
    // Jobs are carried out in order, so this one comes after.
    let found = fixture.db.write(|tx| tx.run("r1")).await.unwrap();
    assert!(found.is_some());
}

#[tokio::test]
async fn a_closed_database_says_so() {
    let fixture = Fixture::new().await;
    let waiting: Vec<_> = (0..50)
        .map(|i| {
            let db = fixture.db.clone();
            tokio::spawn(async move {
                db.write(move |tx| tx.insert_run(&run(&format!("r{i}"))))
                    .await
            })
        })
        .collect();
    fixture.db.close().await;
    let write = fixture.db.write(|tx| tx.insert_run(&run("late"))).await;
    assert!(matches!(write, Err(DbError::Stopped)), "{write:?}");
    let read = fixture.db.read(|rx| rx.run("r1")).await;
    assert!(matches!(read, Err(DbError::Stopped)), "{read:?}");
    fixture.db.close().await;
    let mut kept = 0;
    for write in waiting {
        kept += usize::from(write.await.unwrap().is_ok());
    }
    let db = firelane_store::db::Db::open(&fixture.path).await.unwrap();
    let page = db.read(|rx| rx.unfinished_runs(PageOf::first(100))).await;
    assert_eq!(page.unwrap().items.len(), kept);
}

#[tokio::test]
async fn what_a_record_cannot_hold_is_refused() {
    let fixture = Fixture::new().await;
    let mut large = run("r1");
    large.spec = "x".repeat(MAX_JSON_BYTES + 1);
    let error = fixture.db.write(move |tx| tx.insert_run(&large)).await;
    assert!(matches!(error, Err(DbError::TooLarge { .. })), "{error:?}");
    let error = fixture.db.write(|tx| tx.insert_run(&run("a/b"))).await;
    assert!(matches!(error, Err(DbError::BadId { .. })), "{error:?}");
    assert_eq!(error.unwrap_err().class(), Class::Invalid);
}
