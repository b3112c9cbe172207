//! Snapshots, as the database keeps them.

use firelane_store::db::{DbError, PageOf, Snapshot};

use crate::records::Fixture;

fn snapshot(id: &str, sandbox: &str, parent: Option<&str>) -> Snapshot {
    Snapshot {
        id: id.to_owned(),
        tenant: "t1".to_owned(),
        sandbox: sandbox.to_owned(),
        parent: parent.map(str::to_owned),
        created: 1_000,
        size_bytes: 1 << 40,
        template: "python".to_owned(),
        host: "h1".to_owned(),
    }
}

#[tokio::test]
async fn a_snapshot_comes_back_as_it_was_until_it_is_removed() {
    let mut fixture = Fixture::new().await;
    let new = snapshot("n2", "s1", Some("n1"));
    let kept = new.clone();
    fixture
        .db
        .write(move |tx| tx.insert_snapshot(&kept))
        .await
        .unwrap();
    fixture.reopen().await;
    let found = fixture.db.read(|rx| rx.snapshot("n2")).await.unwrap();
    assert_eq!(found, Some(new.clone()));
    let again = fixture.db.write(move |tx| tx.insert_snapshot(&new)).await;
    assert!(matches!(again, Err(DbError::Exists { .. })), "{again:?}");
    let removed = fixture
        .db
        .write(|tx| {
            let first = tx.remove_snapshot("n2")?;
            Ok((first, tx.remove_snapshot("n2")?, tx.snapshot("n2")?))
        })
        .await
        .unwrap();
    assert_eq!(removed, (true, false, None));
}

#[tokio::test]
async fn snapshots_are_listed_newest_first_by_sandbox() {
    let fixture = Fixture::new().await;
    let (all, of_one, of_nobody, of_host) = fixture
        .db
        .write(|tx| {
            for (id, sandbox) in [("n1", "s1"), ("n2", "s2"), ("n3", "s1")] {
                tx.insert_snapshot(&snapshot(id, sandbox, None))?;
            }
            let page = PageOf::first(10);
            Ok((
                tx.snapshots("t1", None, page)?,
                tx.snapshots("t1", Some("s1"), page)?,
                tx.snapshots("t2", None, page)?,
                [
                    tx.snapshots_of_host("h1", page)?,
                    tx.snapshots_of_host("h2", page)?,
                ],
            ))
        })
        .await
        .unwrap();
    let ids = |page: firelane_store::db::Page<Snapshot>| -> Vec<String> {
        page.items.into_iter().map(|found| found.id).collect()
    };
    assert_eq!(ids(all), ["n3", "n2", "n1"]);
    assert_eq!(ids(of_one), ["n3", "n1"]);
    assert!(ids(of_nobody).is_empty());
    assert_eq!(of_host.map(ids), [vec!["n1", "n2", "n3"], vec![]]);
}

#[tokio::test]
async fn a_size_that_cannot_be_kept_is_refused() {
    let fixture = Fixture::new().await;
    let mut huge = snapshot("n1", "s1", None);
    huge.size_bytes = u64::MAX;
    let result = fixture.db.write(move |tx| tx.insert_snapshot(&huge)).await;
    assert!(result.is_err(), "{result:?}");
}
