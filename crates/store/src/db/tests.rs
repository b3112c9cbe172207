//! The database against files that it must not touch, and against its own promises.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use rusqlite::Connection;
use tempfile::TempDir;

use super::*;

fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("firelane.db");
    (folder, path)
}

fn run(id: &str, tenant: &str) -> RunRow {
    RunRow {
        id: id.into(),
        tenant: tenant.into(),
        caller: "{}".into(),
        state: "queued".into(),
        about: "{}".into(),
        request: Some("{\"code\":\"1\"}".into()),
        problem: None,
        created_us: 1,
        started_us: None,
        finished_us: None,
    }
}

fn audit(action: &str) -> NewAudit {
    NewAudit {
        at_us: 1,
        actor: "uid 0".into(),
        action: action.into(),
        subject: "key".into(),
        detail: "{}".into(),
    }
}

/// What a file is refused with, after a look that nothing of it has changed.
fn refused(path: &Path) -> OpenError {
    let before = fs::read(path).unwrap();
    let error = Db::open(path).err().expect("it is refused");
    assert_eq!(fs::read(path).unwrap(), before, "the file was changed");
    assert!(error.to_string().contains(&path.display().to_string()));
    error
}

#[test]
fn a_file_that_is_no_database_of_ours_is_left_alone() {
    let (_folder, path) = folder();
    fs::write(&path, [0x5a; 5000]).unwrap();
    assert!(matches!(refused(&path), OpenError::Foreign { .. }));
    fs::write(&path, b"short").unwrap();
    assert!(matches!(refused(&path), OpenError::Foreign { .. }));
    fs::remove_file(&path).unwrap();
    let stranger = Connection::open(&path).unwrap();
    stranger.execute_batch("CREATE TABLE t (x)").unwrap();
    stranger.close().unwrap();
    assert!(matches!(refused(&path), OpenError::Foreign { .. }));
}

#[test]
fn a_newer_layout_is_left_alone() {
    let (_folder, path) = folder();
    drop(Db::open(&path).unwrap());
    let connection = Connection::open(&path).unwrap();
    connection
        .execute_batch("PRAGMA journal_mode = DELETE; PRAGMA user_version = 99;")
        .unwrap();
    connection.close().unwrap();
    assert!(matches!(refused(&path), OpenError::Newer { found: 99, .. }));
}

#[tokio::test]
async fn damage_is_found_and_left_alone() {
    let (_folder, path) = folder();
    let db = Db::open(&path).unwrap();
    for number in 0..200 {
        let row = run(&format!("run-{number:032x}"), "t");
        db.insert_run(row, None).await.unwrap();
    }
    drop(db);
    let mut bytes = fs::read(&path).unwrap();
    let whole = bytes.len();
    // Every page but the first.
    for byte in &mut bytes[4096..] {
        *byte = 0xa5;
    }
    fs::write(&path, &bytes).unwrap();
    assert!(matches!(refused(&path), OpenError::Damaged { .. }));
    fs::write(&path, &bytes[..whole / 2]).unwrap();
    assert!(matches!(refused(&path), OpenError::Damaged { .. }));
}

#[test]
fn one_process_has_it_at_a_time() {
    let (_folder, path) = folder();
    let first = Db::open(&path).unwrap();
    assert!(matches!(Db::open(&path), Err(OpenError::InUse { .. })));
    drop(first);
    Db::open(&path).unwrap();
}

#[test]
fn a_folder_that_is_not_there_is_named() {
    let (_folder, path) = folder();
    let path = path.join("no/such.db");
    let error = Db::open(&path).err().expect("it is refused");
    assert!(matches!(error, OpenError::File { .. }), "{error}");
}

#[tokio::test]
async fn what_was_written_is_there_after_a_restart() {
    let (_folder, path) = folder();
    let db = Db::open(&path).unwrap();
    let inserted = db.insert_run(run("run-1", "a"), None).await.unwrap();
    assert_eq!(inserted, Inserted::New);
    drop(db);
    let db = Db::open(&path).unwrap();
    assert_eq!(db.unfinished_runs().await.unwrap(), [run("run-1", "a")]);
    assert!(db.start_run("run-1".into(), 5).await.unwrap());
    assert!(!db.start_run("run-1".into(), 6).await.unwrap(), "once only");
    let over = RunRow {
        state: "done".into(),
        request: None,
        started_us: Some(5),
        finished_us: Some(9),
        ..run("run-1", "a")
    };
    let used = Used {
        day: 20_000,
        tenant: "a".into(),
        cpu_us: 7,
        ..Used::default()
    };
    db.finish_run(over.clone(), vec![1, 2], used.clone())
        .await
        .unwrap();
    drop(db);
    let db = Db::open(&path).unwrap();
    assert_eq!(db.unfinished_runs().await.unwrap(), []);
    assert_eq!(db.run("run-1".into()).await.unwrap(), Some(over));
    assert_eq!(db.run_log("run-1".into()).await.unwrap(), Some(vec![1, 2]));
    let usage = db.usage(None, 20_000, 20_000).await.unwrap();
    assert_eq!(usage, [UsageRow { used, runs: 1 }]);
    assert_eq!(db.prune_runs(9, 10).await.unwrap(), 0);
    assert_eq!(db.prune_runs(10, 10).await.unwrap(), 1);
    assert_eq!(db.run("run-1".into()).await.unwrap(), None);
}

#[tokio::test]
async fn an_idempotency_key_names_one_run_of_one_tenant() {
    let (_folder, path) = folder();
    let db = Db::open(&path).unwrap();
    let key = |fingerprint: u8| Some(("k".to_owned(), [fingerprint; 32]));
    let check = async |id: &str, tenant: &str, key, expected| {
        let inserted = db.insert_run(run(id, tenant), key).await.unwrap();
        assert_eq!(inserted, expected, "{id}");
    };
    check("run-1", "a", key(1), Inserted::New).await;
    check("run-2", "a", key(1), Inserted::Same("run-1".into())).await;
    check("run-3", "a", key(2), Inserted::Other).await;
    check("run-4", "b", key(2), Inserted::New).await;
    assert_eq!(db.run("run-2".into()).await.unwrap(), None);
}

#[tokio::test]
async fn lists_are_of_one_tenant_newest_first() {
    let (_folder, path) = folder();
    let db = Db::open(&path).unwrap();
    for (id, tenant) in [
        ("run-1", "a"),
        ("run-2", "b"),
        ("run-3", "a"),
        ("run-4", "a"),
    ] {
        db.insert_run(run(id, tenant), None).await.unwrap();
    }
    let filter = RunFilter {
        tenant: "a".into(),
        limit: 2,
        ..RunFilter::default()
    };
    let ids = |rows: Vec<RunRow>| rows.into_iter().map(|row| row.id).collect::<Vec<_>>();
    assert_eq!(
        ids(db.runs(filter.clone()).await.unwrap()),
        ["run-4", "run-3"]
    );
    let next = RunFilter {
        before: Some("run-3".into()),
        ..filter.clone()
    };
    assert_eq!(ids(db.runs(next).await.unwrap()), ["run-1"]);
    let done = RunFilter {
        state: Some("done".into()),
        ..filter
    };
    assert_eq!(ids(db.runs(done).await.unwrap()), Vec::<String>::new());
}

#[tokio::test]
async fn a_change_that_fails_takes_no_other_with_it() {
    let (_folder, path) = folder();
    let db = Db::open(&path).unwrap();
    let key = KeyRow {
        id: "key-1".into(),
        about: "{}".into(),
        secret_hash: [1; 32],
        revoked_us: None,
    };
    let twice = [
        db.insert_key(key.clone(), audit("create")),
        db.insert_key(key, audit("create")),
    ];
    let other = db.insert_run(run("run-1", "a"), None);
    let [first, second] = twice;
    let (first, second, other) = tokio::join!(first, second, other);
    first.unwrap();
    assert!(matches!(second, Err(DbError::Sqlite { .. })));
    other.unwrap();
    // Nor is there a word of what failed.
    assert_eq!(db.verify_audit().await.unwrap().unwrap().0, 1);
}

#[tokio::test]
async fn the_audit_cannot_be_changed_and_a_change_from_outside_is_found() {
    let (_folder, path) = folder();
    let db = Db::open(&path).unwrap();
    for action in ["one", "two", "three"] {
        db.audit(audit(action)).await.unwrap();
    }
    let (count, head) = db.verify_audit().await.unwrap().unwrap();
    assert_eq!(count, 3);
    assert_ne!(head, [0; 32]);
    drop(db);
    let check = async |sql: &str, broken: AuditBroken| {
        let copy = path.with_extension("copy");
        fs::copy(&path, &copy).unwrap();
        let connection = Connection::open(&copy).unwrap();
        assert!(connection.execute(sql, []).is_err(), "the trigger refuses");
        connection
            .execute_batch("DROP TRIGGER audit_is_not_changed; DROP TRIGGER audit_is_not_removed;")
            .unwrap();
        connection.execute(sql, []).unwrap();
        connection.close().unwrap();
        let db = Db::open(&copy).unwrap();
        let found = db.verify_audit().await.unwrap();
        assert_eq!(found, Err(broken), "{sql}");
    };
    check(
        "UPDATE audit SET actor = 'x' WHERE seq = 2",
        AuditBroken::Changed(2),
    )
    .await;
    check("DELETE FROM audit WHERE seq = 2", AuditBroken::Missing(2)).await;
    check("DELETE FROM audit WHERE seq = 1", AuditBroken::Missing(1)).await;
}

#[tokio::test]
async fn a_full_disk_is_told_and_what_was_there_stays() {
    let (_folder, path) = folder();
    let db = Db::open(&path).unwrap();
    db.insert_run(run("run-1", "a"), None).await.unwrap();
    // As many pages as there are, and a few.
    db.write(|connection| connection.execute_batch("PRAGMA max_page_count = 40"))
        .await
        .unwrap();
    let mut failed = None;
    for number in 0..200 {
        let row = RunRow {
            about: "x".repeat(4096),
            ..run(&format!("run-x{number}"), "a")
        };
        if let Err(error) = db.insert_run(row, None).await {
            failed = Some(error);
            break;
        }
    }
    assert!(matches!(failed, Some(DbError::Full { .. })), "{failed:?}");
    assert_eq!(
        db.run("run-1".into()).await.unwrap(),
        Some(run("run-1", "a"))
    );
    db.start_run("run-1".into(), 1).await.unwrap();
}

#[test]
fn a_folder_that_cannot_be_written_is_told() {
    if rustix::process::geteuid().is_root() {
        // Permissions do not bind root.
        return;
    }
    let (folder, path) = folder();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o555)).unwrap();
    let error = Db::open(&path).err().expect("it is refused");
    assert!(matches!(error, OpenError::File { .. }), "{error}");
}
