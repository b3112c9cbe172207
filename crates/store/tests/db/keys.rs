//! API keys.

use firelane_store::db::{DbError, PageOf};

use crate::records::{Fixture, key};

#[tokio::test]
async fn a_key_comes_back_as_it_was() {
    let mut fixture = Fixture::new().await;
    let new = key("k1", "t1");
    let kept = new.clone();
    fixture
        .db
        .write(move |tx| tx.insert_key(&kept))
        .await
        .unwrap();
    fixture.reopen().await;
    let found = fixture.db.read(|rx| rx.key("k1")).await.unwrap();
    assert_eq!(found, Some(new.clone()));
    assert_eq!(fixture.db.read(|rx| rx.key("k2")).await.unwrap(), None);
    let again = fixture.db.write(move |tx| tx.insert_key(&new)).await;
    assert!(matches!(again, Err(DbError::Exists { .. })), "{again:?}");
}

#[tokio::test]
async fn a_key_is_revoked_once() {
    let fixture = Fixture::new().await;
    let revoked = fixture
        .db
        .write(|tx| {
            tx.insert_key(&key("k1", "t1"))?;
            let first = tx.revoke_key("k1", 2_000)?;
            let again = tx.revoke_key("k1", 3_000)?;
            Ok((first, again, tx.revoke_key("k2", 2_000)?, tx.key("k1")?))
        })
        .await
        .unwrap();
    let (first, again, unknown, found) = revoked;
    assert!(first && again && !unknown);
    assert_eq!(found.unwrap().revoked_at, Some(2_000));
}

#[tokio::test]
async fn use_is_noted_by_the_minute_whatever_the_clock_does() {
    let fixture = Fixture::new().await;
    let noted = fixture
        .db
        .write(|tx| {
            tx.insert_key(&key("k1", "t1"))?;
            let mut noted = Vec::new();
            for now in [500_000, 530_000, 560_000, 100_000, 100_001] {
                tx.use_key("k1", now)?;
                noted.push(tx.key("k1")?.and_then(|key| key.last_used));
            }
            Ok(noted)
        })
        .await
        .unwrap();
    let noted: Vec<_> = noted.into_iter().flatten().collect();
    assert_eq!(noted, [500_000, 500_000, 560_000, 100_000, 100_000]);
}

#[tokio::test]
async fn keys_are_listed_by_tenant_in_pages() {
    let fixture = Fixture::new().await;
    fixture
        .db
        .write(|tx| {
            (0..7).try_for_each(|i| {
                tx.insert_key(&key(&format!("k{i}"), if i % 2 == 0 { "t1" } else { "t2" }))
            })
        })
        .await
        .unwrap();
    let mut listed = Vec::new();
    let mut page = PageOf::first(3);
    loop {
        let found = fixture
            .db
            .read(move |rx| rx.keys(Some("t1"), page))
            .await
            .unwrap();
        listed.extend(found.items.into_iter().map(|key| key.id));
        page.after = found.next;
        if page.after.is_none() {
            break;
        }
    }
    assert_eq!(listed, ["k0", "k2", "k4", "k6"]);
    let all = fixture
        .db
        .read(|rx| rx.keys(None, PageOf::first(100)))
        .await;
    assert_eq!(all.unwrap().items.len(), 7);
}
