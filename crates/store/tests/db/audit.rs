//! The chain of the audit log.

use firelane_store::db::{AuditEntry, AuditFault, AuditHead, AuditVerdict, DbError, PageOf};
use rusqlite::Connection;
use tokio::task::JoinSet;

use crate::records::Fixture;

fn entry(i: i64) -> AuditEntry {
    AuditEntry {
        // A clock that goes backwards.
        at: -i,
        actor: format!("key k{i}"),
        action: "run.create".to_owned(),
        subject: format!("run r{i}"),
        detail: r#"{"é":1}"#.to_owned(),
    }
}

/// More than a page of the walk.
const ROWS: i64 = 1_203;

async fn with_rows() -> (Fixture, AuditHead) {
    let fixture = Fixture::new().await;
    let head = fixture
        .db
        .write(|tx| {
            let mut head = AuditHead::EMPTY;
            for i in 1..=ROWS {
                head = tx.append_audit(&entry(i))?;
            }
            Ok(head)
        })
        .await
        .unwrap();
    (fixture, head)
}

#[tokio::test]
async fn the_head_is_that_of_the_rows() {
    let (mut fixture, head) = with_rows().await;
    let computed = (1..=ROWS).fold(AuditHead::EMPTY, |head, i| head.then(&entry(i)));
    assert_eq!(head, computed);
    fixture.reopen().await;
    let found = fixture.db.audit_head().await.unwrap();
    assert_eq!(found, head);
    let verdict = fixture.db.audit_verify(Some(head)).await.unwrap();
    assert_eq!(verdict, AuditVerdict::Whole(head));
    let rows = fixture
        .db
        .read(|rx| rx.audit_rows(PageOf::first(2)))
        .await
        .unwrap();
    assert_eq!((rows.items[0].seq, &rows.items[0].entry), (1, &entry(1)));
    assert_eq!(
        rows.items[1].hash,
        AuditHead::EMPTY.then(&entry(1)).then(&entry(2)).hash
    );
}

#[tokio::test]
async fn an_empty_log_is_whole() {
    let fixture = Fixture::new().await;
    let verdict = fixture.db.audit_verify(None).await.unwrap();
    assert_eq!(verdict, AuditVerdict::Whole(AuditHead::EMPTY));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_come_together_make_one_chain() {
    let fixture = Fixture::new().await;
    let mut callers = JoinSet::new();
    for i in 0..200 {
        let db = fixture.db.clone();
        callers.spawn(async move {
            db.write(move |tx| {
                let head = tx.append_audit(&entry(i))?;
                if i % 4 == 0 {
                    // Undone, with its row.
                    let (what, id) = ("test", i.to_string());
                    return Err(DbError::Exists { what, id });
                }
                Ok(head)
            })
            .await
        });
    }
    callers.join_all().await;
    let verdict = fixture.db.audit_verify(None).await.unwrap();
    assert!(
        matches!(verdict, AuditVerdict::Whole(head) if head.seq == 150),
        "{verdict:?}"
    );
}

#[tokio::test]
async fn the_tables_refuse_what_is_no_append() {
    let (fixture, _) = with_rows().await;
    let file = Connection::open(&fixture.path).unwrap();
    file.pragma_update(None, "recursive_triggers", true)
        .unwrap();
    let row = "at, actor, action, subject, detail, hash) SELECT";
    let rest = "at, actor, action, subject, detail, hash FROM audit WHERE seq = 1";
    for (sql, reason) in [
        (
            "UPDATE audit SET actor = 'nobody' WHERE seq = 7".to_owned(),
            "not changed",
        ),
        ("DELETE FROM audit WHERE seq = 7".to_owned(), "not deleted"),
        ("DELETE FROM audit".to_owned(), "not deleted"),
        (
            format!("INSERT OR REPLACE INTO audit (seq, {row} 7, {rest}"),
            "follows the last",
        ),
        (
            format!("INSERT INTO audit (seq, {row} {}, {rest}", ROWS + 2),
            "follows the last",
        ),
        (
            format!("INSERT INTO audit (seq, {row} 0, {rest}"),
            "follows the last",
        ),
    ] {
        let error = file.execute(&sql, []).unwrap_err().to_string();
        assert!(error.contains(reason), "{sql}: {error}");
    }
    let verdict = fixture.db.audit_verify(None).await.unwrap();
    assert!(matches!(verdict, AuditVerdict::Whole(_)), "{verdict:?}");
}

/// Changes the file as somebody who can write it, and expects the first bad row to be named.
async fn tampered(sql: &str, noted: bool, seq: u64, fault: AuditFault) {
    let (fixture, head) = with_rows().await;
    let file = Connection::open(&fixture.path).unwrap();
    file.execute_batch(
        "PRAGMA ignore_check_constraints = ON;
         DROP TRIGGER audit_rows_follow; DROP TRIGGER audit_rows_stay; DROP TRIGGER audit_rows_are_final;",
    )
    .unwrap();
    file.execute_batch(sql).unwrap();
    let verdict = fixture
        .db
        .audit_verify(noted.then_some(head))
        .await
        .unwrap();
    assert_eq!(verdict, AuditVerdict::Broken { seq, fault }, "{sql}");
}

#[tokio::test]
async fn the_first_bad_row_is_named() {
    for (sql, seq, fault) in [
        (
            "UPDATE audit SET actor = 'nobody' WHERE seq = 700",
            700,
            AuditFault::Hash,
        ),
        (
            "UPDATE audit SET at = at + 1 WHERE seq = 1",
            1,
            AuditFault::Hash,
        ),
        (
            "UPDATE audit SET detail = '' WHERE seq IN (900, 501)",
            501,
            AuditFault::Hash,
        ),
        // A byte from one column to the next.
        (
            "UPDATE audit SET actor = actor || 'r', action = substr(action, 2) WHERE seq = 9",
            9,
            AuditFault::Hash,
        ),
        (
            "UPDATE audit SET hash = zeroblob(32) WHERE seq = 1203",
            1203,
            AuditFault::Hash,
        ),
        (
            "UPDATE audit SET hash = x'00' WHERE seq = 3",
            3,
            AuditFault::Hash,
        ),
        (
            "UPDATE audit SET subject = CAST(x'ff' AS TEXT) WHERE seq = 4",
            4,
            AuditFault::Hash,
        ),
        ("DELETE FROM audit WHERE seq = 5", 5, AuditFault::Missing),
        ("DELETE FROM audit WHERE seq < 3", 1, AuditFault::Missing),
        (
            "DELETE FROM audit WHERE seq = 5; UPDATE audit SET seq = seq - 1 WHERE seq > 5",
            5,
            AuditFault::Hash,
        ),
    ] {
        tampered(sql, false, seq, fault).await;
    }
}

#[tokio::test]
async fn a_noted_head_shows_an_end_that_was_cut_off() {
    tampered(
        "DELETE FROM audit WHERE seq > 1200",
        true,
        1201,
        AuditFault::Missing,
    )
    .await;
    tampered("DELETE FROM audit", true, 1, AuditFault::Missing).await;
}

#[tokio::test]
async fn a_noted_head_shows_rows_that_were_made_anew() {
    let (fixture, _) = with_rows().await;
    let mut forged = AuditHead::EMPTY;
    for _ in 0..2 {
        forged = forged.then(&entry(1));
    }
    let verdict = fixture.db.audit_verify(Some(forged)).await.unwrap();
    let (seq, fault) = (2, AuditFault::Noted);
    assert_eq!(verdict, AuditVerdict::Broken { seq, fault });
}
