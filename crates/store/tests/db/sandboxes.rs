//! Sandboxes, as the database keeps them.

use firelane_store::db::{
    DbError, Labels, MAX_LABELS, PageOf, Sandbox, SandboxChange, SandboxUpdate,
};

use crate::records::Fixture;

fn labels(pairs: &[(&str, &str)]) -> Labels {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    pairs.iter().map(owned).collect()
}

fn sandbox(id: &str, pairs: &[(&str, &str)]) -> Sandbox {
    Sandbox {
        id: id.to_owned(),
        tenant: "t1".to_owned(),
        key_id: Some("k1".to_owned()),
        host: "h1".to_owned(),
        parent: Some("s0".to_owned()),
        state: "creating".to_owned(),
        live: true,
        reason: None,
        generation: 1,
        revision: 3,
        cpu_us: 50,
        spec: r#"{"template":"python"}"#.to_owned(),
        labels: labels(pairs),
        created: 1_000,
        expires: Some(9_000),
        updated: 1_000,
    }
}

fn update(state: &str, live: bool) -> SandboxUpdate {
    SandboxUpdate {
        state: state.to_owned(),
        live,
        reason: Some("because".to_owned()),
        revision: 4,
        cpu_us: 60,
        spec: None,
        expires: None,
        labels: None,
        updated: 2_000,
    }
}

#[tokio::test]
async fn a_sandbox_comes_back_as_it_was_and_as_it_was_changed() {
    let mut fixture = Fixture::new().await;
    let new = sandbox("s1", &[("team", "a'b\"c"), ("", "empty name")]);
    let kept = new.clone();
    fixture
        .db
        .write(move |tx| tx.insert_sandbox(&kept))
        .await
        .unwrap();
    fixture.reopen().await;
    let found = fixture.db.read(|rx| rx.sandbox("s1")).await.unwrap();
    assert_eq!(found.as_ref(), Some(&new));

    let mut change = update("running", true);
    change.labels = Some(labels(&[("team", "z")]));
    change.spec = Some(r#"{"template":"other"}"#.to_owned());
    let (changed, found) = fixture
        .db
        .write(move |tx| Ok((tx.update_sandbox("s1", 1, &change)?, tx.sandbox("s1")?)))
        .await
        .unwrap();
    assert_eq!(changed, SandboxChange::Made(2));
    let expected = Sandbox {
        state: "running".to_owned(),
        reason: Some("because".to_owned()),
        generation: 2,
        revision: 4,
        cpu_us: 60,
        spec: r#"{"template":"other"}"#.to_owned(),
        labels: labels(&[("team", "z")]),
        expires: None,
        updated: 2_000,
        ..new.clone()
    };
    assert_eq!(found, Some(expected));
    let again = fixture.db.write(move |tx| tx.insert_sandbox(&new)).await;
    assert!(matches!(again, Err(DbError::Exists { .. })), "{again:?}");
}

#[tokio::test]
async fn a_change_of_an_older_generation_is_refused() {
    let fixture = Fixture::new().await;
    let changes = fixture
        .db
        .write(|tx| {
            tx.insert_sandbox(&sandbox("s1", &[]))?;
            let mut stale = update("lost", true);
            stale.labels = Some(labels(&[("not", "kept")]));
            let first = tx.update_sandbox("s1", 1, &update("running", true))?;
            let second = tx.update_sandbox("s1", 1, &stale)?;
            let unknown = tx.update_sandbox("s2", 1, &stale)?;
            Ok(([first, second, unknown], tx.sandbox("s1")?))
        })
        .await
        .unwrap();
    let (changes, found) = changes;
    assert_eq!(
        changes,
        [
            SandboxChange::Made(2),
            SandboxChange::Stale(2),
            SandboxChange::NotFound
        ]
    );
    let found = found.unwrap();
    assert_eq!((found.state.as_str(), found.labels.len()), ("running", 0));
    // What a change does not name stays.
    assert_eq!(found.spec, sandbox("s1", &[]).spec);
}

#[tokio::test]
async fn lists_are_filtered_by_all_labels_in_pages() {
    let fixture = Fixture::new().await;
    fixture
        .db
        .write(|tx| {
            for i in 0..12 {
                let even = if i % 2 == 0 { "yes" } else { "no" };
                let three = if i % 3 == 0 { "yes" } else { "no" };
                let mut new = sandbox(&format!("s{i}"), &[("even", even), ("three", three)]);
                if i == 11 {
                    new.tenant = "t2".to_owned();
                }
                tx.insert_sandbox(&new)?;
            }
            tx.update_sandbox("s6", 1, &update("destroyed", false))
        })
        .await
        .unwrap();
    for (filter, only_live, expected) in [
        (labels(&[("even", "yes"), ("three", "yes")]), false, "s6 s0"),
        (labels(&[("even", "yes"), ("three", "yes")]), true, "s0"),
        (labels(&[("even", "no")]), true, "s9 s7 s5 s3 s1"),
        (labels(&[("even", "perhaps")]), false, ""),
        (labels(&[("odd", "yes")]), false, ""),
        (labels(&[]), true, "s10 s9 s8 s7 s5 s4 s3 s2 s1 s0"),
    ] {
        let mut listed = Vec::new();
        let mut page = PageOf::first(2);
        loop {
            let filter = filter.clone();
            let found = fixture
                .db
                .read(move |rx| rx.sandboxes("t1", &filter, only_live, page))
                .await
                .unwrap();
            assert!(found.items.iter().all(|sandbox| sandbox.labels.len() == 2));
            listed.extend(found.items.into_iter().map(|sandbox| sandbox.id));
            page.after = found.next;
            if page.after.is_none() {
                break;
            }
        }
        assert_eq!(listed.join(" "), expected, "{filter:?} {only_live}");
    }
}

#[tokio::test]
async fn what_is_live_is_found_at_the_start_and_what_is_not_is_pruned() {
    let mut fixture = Fixture::new().await;
    let pruned = fixture
        .db
        .write(|tx| {
            for id in ["s1", "s2", "s3", "s4"] {
                tx.insert_sandbox(&sandbox(id, &[("a", "b")]))?;
            }
            for id in ["s2", "s3"] {
                tx.update_sandbox(id, 1, &update("destroyed", false))?;
            }
            Ok([
                tx.prune_sandboxes(2_000, 10)?,
                tx.prune_sandboxes(2_001, 1)?,
            ])
        })
        .await
        .unwrap();
    assert_eq!(pruned, [0, 1]);
    fixture.reopen().await;
    let (live, all) = fixture
        .db
        .read(|rx| {
            let all = rx.sandboxes("t1", &Labels::new(), false, PageOf::first(10))?;
            Ok((rx.live_sandboxes(PageOf::first(10))?, all))
        })
        .await
        .unwrap();
    let ids: Vec<_> = live.items.iter().map(|found| found.id.as_str()).collect();
    assert_eq!((ids, all.items.len()), (vec!["s1", "s4"], 3));
}

#[tokio::test]
async fn more_labels_than_are_kept_are_refused() {
    let fixture = Fixture::new().await;
    let mut many = sandbox("s1", &[]);
    many.labels = (0..=MAX_LABELS)
        .map(|i| (i.to_string(), String::new()))
        .collect();
    let result = fixture.db.write(move |tx| tx.insert_sandbox(&many)).await;
    assert!(
        matches!(result, Err(DbError::TooLarge { .. })),
        "{result:?}"
    );
}
