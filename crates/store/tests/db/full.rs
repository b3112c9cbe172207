//! No space left.

use std::fs;

use firelane_store::db::{Db, DbError, OpenError};

use crate::records::{child, role, run};

/// Fills the database until it is refused; every acknowledged id.
async fn fill(db: &Db) -> (Vec<String>, DbError) {
    let mut acknowledged = Vec::new();
    for i in 0..100_000 {
        let mut new = run(&format!("r{i}"));
        new.spec = "x".repeat(20_000);
        match db.write(move |tx| tx.insert_run(&new)).await {
            Ok(()) => acknowledged.push(format!("r{i}")),
            Err(error) => return (acknowledged, error),
        }
    }
    panic!("it never became full");
}

async fn all_there(db: &Db, ids: &[String]) {
    for id in ids {
        let asked = id.clone();
        let found = db.read(move |rx| rx.run(&asked)).await.unwrap();
        assert!(found.is_some(), "{id} was acknowledged, and is lost");
    }
}

#[test]
fn meets_the_limit_of_a_file() {
    let Some(path) = role("limit") else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let db = Db::open(&path).await.unwrap();
        let (acknowledged, error) = fill(&db).await;
        // The limit is no full disk, and SQLite says so.
        assert!(matches!(error, DbError::Failed { .. }), "{error:?}");
        all_there(&db, &acknowledged).await;
        db.close().await;
        // Not a line of its own: the harness does not end the line before it.
        println!("acknowledged {}", acknowledged.len());
    });
}

#[tokio::test]
async fn a_write_that_does_not_fit_is_refused_and_the_others_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    // Blocks of 512 bytes: 2 MiB. The signal that comes with the limit would kill.
    let before = "trap '' XFSZ; ulimit -f 4096";
    let output = child("full::meets_the_limit_of_a_file", "limit", &path, before)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let out = String::from_utf8_lossy(&output.stdout);
    let (_, count) = out.split_once("acknowledged ").unwrap();
    let count: usize = count.lines().next().unwrap().parse().unwrap();
    assert!(count > 10, "{out}");
    let db = Db::open(&path).await.unwrap();
    let ids: Vec<_> = (0..count).map(|i| format!("r{i}")).collect();
    all_there(&db, &ids).await;
}

#[test]
fn meets_a_full_file_system() {
    let Some(path) = role("tmpfs") else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let ballast = path.with_file_name("ballast");
        // No room for a new database, first of all.
        fs::write(&ballast, vec![0; 4 * 1024 * 1024 - 32 * 1024]).unwrap();
        let Err(error) = Db::open(&path).await else {
            panic!("it fits")
        };
        let expected = matches!(error, OpenError::Sqlite { .. } | OpenError::File { .. });
        assert!(
            expected && error.to_string().contains("state.db"),
            "{error}"
        );
        assert!(!path.exists(), "nothing half made is left");
        fs::write(&ballast, vec![0; 1024 * 1024]).unwrap();

        let db = Db::open(&path).await.unwrap();
        let (mut acknowledged, error) = fill(&db).await;
        assert!(matches!(error, DbError::Full { .. }), "{error:?}");
        all_there(&db, &acknowledged).await;
        // With space again, the same database goes on.
        fs::remove_file(&ballast).unwrap();
        db.write(|tx| tx.insert_run(&run("after"))).await.unwrap();
        acknowledged.push("after".to_owned());
        db.close().await;
        let db = Db::open(&path).await.unwrap();
        all_there(&db, &acknowledged).await;
        println!("went on");
    });
}

#[tokio::test]
async fn a_full_disk_is_told_and_ends_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let name = folder.path().to_str().unwrap();
    let before = format!(
        "if [ -z \"$INSIDE\" ]; then
             INSIDE=1 exec unshare -m sh -ec 'mount -t tmpfs -o size=4m none {name}
             exec \"$0\" --exact \"$1\" --nocapture' \"$0\" \"$1\"
         fi"
    );
    let output = child("full::meets_a_full_file_system", "tmpfs", &path, &before)
        .output()
        .unwrap();
    if String::from_utf8_lossy(&output.stderr).contains("unshare failed") {
        eprintln!("SKIP(no mount namespaces): a full disk");
        return;
    }
    assert!(output.status.success(), "{output:?}");
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(out.contains("went on"), "{out}");
}
