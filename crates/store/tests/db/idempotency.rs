//! One answer for a request and its repetitions.

use firelane_store::db::{KeptAnswer, Reserved};
use tokio::task::JoinSet;

use crate::records::Fixture;

const ONE: [u8; 32] = [1; 32];
const OTHER: [u8; 32] = [2; 32];

fn answer() -> KeptAnswer {
    KeptAnswer {
        status: 201,
        headers: r#"{"location":"/v1/runs/r1"}"#.to_owned(),
        body: b"\0body\xff".to_vec(),
    }
}

#[tokio::test]
async fn a_repeated_request_gets_the_first_answer() {
    let mut fixture = Fixture::new().await;
    let (first, meanwhile, other, completed) = fixture
        .db
        .write(|tx| {
            let first = tx.reserve_answer("t1", "any text ü", &ONE, 1_000)?;
            let meanwhile = tx.reserve_answer("t1", "any text ü", &ONE, 1_001)?;
            let other = tx.reserve_answer("t1", "any text ü", &OTHER, 1_002)?;
            let Reserved::New(reservation) = first else {
                return Ok((first, meanwhile, other, [false; 2]));
            };
            let completed = [
                tx.complete_answer(reservation, &answer())?,
                tx.complete_answer(reservation, &answer())?,
            ];
            Ok((first, meanwhile, other, completed))
        })
        .await
        .unwrap();
    assert!(matches!(first, Reserved::New(_)));
    assert_eq!(meanwhile, Reserved::InProgress);
    assert_eq!(other, Reserved::Mismatch);
    assert_eq!(completed, [true, false]);
    fixture.reopen().await;
    let (again, other, of_another) = fixture
        .db
        .write(|tx| {
            Ok((
                tx.reserve_answer("t1", "any text ü", &ONE, 2_000)?,
                tx.reserve_answer("t1", "any text ü", &OTHER, 2_000)?,
                tx.reserve_answer("t2", "any text ü", &OTHER, 2_000)?,
            ))
        })
        .await
        .unwrap();
    assert_eq!(again, Reserved::Done(answer()));
    assert_eq!(other, Reserved::Mismatch);
    assert!(matches!(of_another, Reserved::New(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_many_at_once_is_to_do_it() {
    let fixture = Fixture::new().await;
    let mut callers = JoinSet::new();
    for _ in 0..100 {
        let db = fixture.db.clone();
        callers.spawn(async move { db.write(|tx| tx.reserve_answer("t1", "k", &ONE, 1)).await });
    }
    let mut new = 0;
    while let Some(reserved) = callers.join_next().await {
        match reserved.unwrap().unwrap() {
            Reserved::New(_) => new += 1,
            other => assert_eq!(other, Reserved::InProgress),
        }
    }
    assert_eq!(new, 1);
}

#[tokio::test]
async fn a_key_that_was_given_back_is_taken_anew_and_the_old_reservation_is_void() {
    let fixture = Fixture::new().await;
    let (second, late) = fixture
        .db
        .write(|tx| {
            let Reserved::New(first) = tx.reserve_answer("t1", "k", &ONE, 1)? else {
                panic!("nobody had it")
            };
            tx.release_answer(first)?;
            let second = tx.reserve_answer("t1", "k", &OTHER, 2)?;
            let late = tx.complete_answer(first, &answer())?;
            tx.release_answer(first)?;
            Ok((second, late))
        })
        .await
        .unwrap();
    assert!(matches!(second, Reserved::New(_)) && !late);
    let now = fixture
        .db
        .write(|tx| tx.reserve_answer("t1", "k", &OTHER, 3))
        .await;
    assert_eq!(now.unwrap(), Reserved::InProgress);
}

#[tokio::test]
async fn answers_expire_and_those_in_progress_only_at_a_start() {
    let fixture = Fixture::new().await;
    let counts = fixture
        .db
        .write(|tx| {
            for (key, at) in [("a", 100), ("b", 200), ("c", 300), ("d", 50)] {
                let Reserved::New(reservation) = tx.reserve_answer("t1", key, &ONE, at)? else {
                    panic!("nobody had it")
                };
                if key != "d" {
                    tx.complete_answer(reservation, &answer())?;
                }
            }
            Ok([
                tx.expire_answers(300, 1)?,
                tx.expire_answers(300, 10)?,
                tx.expire_answers(300, 10)?,
            ])
        })
        .await
        .unwrap();
    assert_eq!(counts, [1, 1, 0]);
    assert_eq!(fixture.db.release_all_answers().await.unwrap(), 1);
    assert_eq!(fixture.db.release_all_answers().await.unwrap(), 0);
    let kept = fixture
        .db
        .write(|tx| tx.reserve_answer("t1", "c", &ONE, 4))
        .await;
    assert_eq!(kept.unwrap(), Reserved::Done(answer()));
}
