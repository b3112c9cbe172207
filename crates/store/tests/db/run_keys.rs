//! The same idempotency key of the same tenant means the same run.

use firelane_store::db::{DbError, RunKey};

use crate::records::{Fixture, run};

const ONE: [u8; 32] = [1; 32];
const OTHER: [u8; 32] = [2; 32];

#[tokio::test]
async fn a_key_names_one_run_of_one_tenant() {
    let mut fixture = Fixture::new().await;
    let first = fixture
        .db
        .write(|tx| {
            tx.insert_run(&run("r1"))?;
            tx.take_run_key("t1", "any text ü", &ONE, "r1", 1)
        })
        .await
        .unwrap();
    assert_eq!(first, RunKey::New);
    fixture.reopen().await;
    let later = fixture
        .db
        .write(|tx| {
            Ok([
                tx.take_run_key("t1", "any text ü", &ONE, "r2", 2)?,
                tx.take_run_key("t1", "any text ü", &OTHER, "r3", 3)?,
                tx.take_run_key("t2", "any text ü", &OTHER, "r4", 4)?,
            ])
        })
        .await
        .unwrap();
    assert_eq!(
        later,
        [RunKey::Same("r1".into()), RunKey::Other, RunKey::New]
    );
}

#[tokio::test]
async fn a_key_of_a_run_that_is_not_kept_is_free() {
    let fixture = Fixture::new().await;
    let failed = fixture
        .db
        .write(|tx| {
            tx.take_run_key("t1", "k", &ONE, "r1", 1)?;
            tx.insert_run(&run("r1"))?;
            tx.insert_run(&run("r1"))
        })
        .await;
    assert!(matches!(failed, Err(DbError::Exists { .. })), "{failed:?}");
    let taken = fixture
        .db
        .write(|tx| tx.take_run_key("t1", "k", &OTHER, "r2", 2))
        .await;
    assert_eq!(taken.unwrap(), RunKey::New);
}

#[tokio::test]
async fn old_keys_are_forgotten_a_few_at_a_time() {
    let fixture = Fixture::new().await;
    let forgotten = fixture
        .db
        .write(|tx| {
            for (key, at) in [("a", 100), ("b", 200), ("c", 300), ("d", 400)] {
                tx.take_run_key("t1", key, &ONE, "r1", at)?;
            }
            Ok([
                tx.forget_run_keys(400, 2)?,
                tx.forget_run_keys(400, 2)?,
                tx.forget_run_keys(400, 2)?,
            ])
        })
        .await
        .unwrap();
    assert_eq!(forgotten, [2, 1, 0]);
    let left = fixture
        .db
        .write(|tx| tx.take_run_key("t1", "d", &OTHER, "r2", 500))
        .await;
    assert_eq!(left.unwrap(), RunKey::Other);
}
