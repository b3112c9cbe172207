//! What tenants used.

use firelane_store::db::{DbError, MAX_USAGE_DAYS, Usage, UsageOfDay};
use tokio::task::JoinSet;

use crate::records::Fixture;

fn used(n: u64) -> Usage {
    Usage {
        runs: n,
        cpu_us: 10 * n,
        wall_us: 20 * n,
        output_bytes: 30 * n,
    }
}

fn of_day(key_id: &str, day: i64, n: u64) -> UsageOfDay {
    UsageOfDay {
        key_id: key_id.to_owned(),
        day,
        usage: used(n),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn amounts_add_up_by_key_and_day() {
    let fixture = Fixture::new().await;
    let mut callers = JoinSet::new();
    for i in 0..100 {
        let db = fixture.db.clone();
        let key = if i % 2 == 0 { "k1" } else { "k2" };
        let day = if i < 50 { 20_000 } else { 20_001 };
        callers.spawn(async move {
            db.write(move |tx| tx.add_usage("t1", key, day, &used(1)))
                .await
        });
    }
    while let Some(added) = callers.join_next().await {
        added.unwrap().unwrap();
    }
    let (all, one, nothing) = fixture
        .db
        .read(|rx| {
            Ok((
                rx.usage("t1", None, 20_000, 20_001)?,
                rx.usage("t1", Some("k2"), 20_001, 20_009)?,
                rx.usage("t2", None, 20_000, 20_001)?,
            ))
        })
        .await
        .unwrap();
    let expected = [
        of_day("k1", 20_000, 25),
        of_day("k2", 20_000, 25),
        of_day("k1", 20_001, 25),
        of_day("k2", 20_001, 25),
    ];
    assert_eq!(all, expected);
    assert_eq!(one, [of_day("k2", 20_001, 25)]);
    assert_eq!(nothing, []);
}

#[tokio::test]
async fn an_amount_that_would_overflow_is_refused_and_the_sum_stays() {
    let fixture = Fixture::new().await;
    let large = Usage {
        cpu_us: i64::MAX as u64,
        ..used(1)
    };
    fixture
        .db
        .write(move |tx| tx.add_usage("t1", "k1", 1, &large))
        .await
        .unwrap();
    let more = fixture
        .db
        .write(|tx| tx.add_usage("t1", "k1", 1, &used(1)))
        .await;
    assert!(more.is_err(), "{more:?}");
    let found = fixture
        .db
        .read(|rx| rx.usage("t1", None, 1, 1))
        .await
        .unwrap();
    assert_eq!(found[0].usage, large);
}

#[tokio::test]
async fn a_range_is_bounded_and_may_be_empty() {
    let fixture = Fixture::new().await;
    for (last, fits) in [
        (MAX_USAGE_DAYS, true),
        (MAX_USAGE_DAYS + 1, false),
        (i64::MAX, false),
        (-5, true),
    ] {
        let found = fixture
            .db
            .read(move |rx| rx.usage("t1", None, 1, last))
            .await;
        match found {
            Ok(found) => assert!(fits && found.is_empty(), "{last}"),
            Err(error) => assert!(
                !fits && matches!(error, DbError::TooLarge { .. }),
                "{last}: {error}"
            ),
        }
    }
}
