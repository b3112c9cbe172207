//! What is opened, and what is refused and left as it is.

use std::fs;
use std::io::BufRead;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use firelane_store::db::{Db, OpenError, PageOf};
use rusqlite::Connection;

use crate::records::{Fixture, bytes, child, role, run};

/// Opens, and expects a refusal that names the file, has a remedy and changed nothing.
async fn refused(path: &Path) -> OpenError {
    let before = bytes(path);
    let error = Db::open(path).await.err().expect("it is refused");
    assert!(bytes(path) == before, "{error}: the file was changed");
    let name = path.file_name().unwrap().to_str().unwrap();
    assert!(error.to_string().contains(name), "{error}");
    assert!(!error.remedy().is_empty(), "{error}");
    error
}

/// A closed database with some rows.
async fn closed() -> Fixture {
    let fixture = Fixture::new().await;
    fixture
        .db
        .write(|tx| (0..1_000).try_for_each(|i| tx.insert_run(&run(&format!("r{i}")))))
        .await
        .unwrap();
    fixture.db.close().await;
    fixture
}

#[tokio::test]
async fn it_is_created_for_its_owner_alone_and_found_again() {
    let mut fixture = Fixture::new().await;
    let mode = fs::metadata(&fixture.path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    fixture
        .db
        .write(|tx| tx.insert_run(&run("r1")))
        .await
        .unwrap();
    fixture.reopen().await;
    let found = fixture.db.read(|rx| rx.run("r1")).await.unwrap();
    assert_eq!(found.unwrap().spec, Some(run("r1").spec));
}

#[tokio::test]
async fn a_creation_that_was_cut_off_is_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    for left in ["state.db.new", "state.db.new-journal", "state.db.new-wal"] {
        fs::write(folder.path().join(left), b"half").unwrap();
    }
    let db = Db::open(&path).await.unwrap();
    db.write(|tx| tx.insert_run(&run("r1"))).await.unwrap();
}

#[tokio::test]
async fn a_second_opener_is_refused_until_the_first_closed() {
    let fixture = Fixture::new().await;
    let error = refused(&fixture.path).await;
    assert!(matches!(error, OpenError::InUse { .. }), "{error}");
    fixture.db.close().await;
    Db::open(&fixture.path).await.unwrap();
}

#[test]
fn holds_until_killed() {
    let Some(path) = role("hold") else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _db = runtime.block_on(Db::open(&path)).unwrap();
    println!("held");
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

#[tokio::test]
async fn another_process_is_refused_until_the_first_died() {
    let fixture = closed().await;
    let mut child = child("opening::holds_until_killed", "hold", &fixture.path, "")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let out = std::io::BufReader::new(child.stdout.take().unwrap());
    assert!(out.lines().any(|line| line.unwrap().ends_with("held")));
    let error = refused(&fixture.path).await;
    assert!(matches!(error, OpenError::InUse { .. }), "{error}");
    child.kill().unwrap();
    child.wait().unwrap();
    Db::open(&fixture.path).await.unwrap();
}

#[tokio::test]
async fn a_file_that_another_program_writes_is_refused() {
    let fixture = closed().await;
    let other = Connection::open(&fixture.path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = refused(&fixture.path).await;
    assert!(matches!(error, OpenError::Locked { .. }), "{error}");
    other.execute_batch("ROLLBACK").unwrap();
    drop(other);
    Db::open(&fixture.path).await.unwrap();
}

#[tokio::test]
async fn a_file_that_another_program_has_for_itself_is_refused() {
    let fixture = closed().await;
    let other = Connection::open(&fixture.path).unwrap();
    other
        .execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE")
        .unwrap();
    let error = refused(&fixture.path).await;
    assert!(matches!(error, OpenError::Locked { .. }), "{error}");
}

#[tokio::test]
async fn what_is_no_database_of_ours_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| -> PathBuf {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let mut noise = vec![0; 10_000];
    let mut seed = 1_u32;
    for byte in &mut noise {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = (seed >> 24) as u8;
    }
    let mut after_magic = b"SQLite format 3\0".to_vec();
    after_magic.extend(&noise);
    for path in [
        file("noise.db", &noise),
        file("text.db", b"notes of somebody\n"),
        file("magic.db", &after_magic),
    ] {
        let error = refused(&path).await;
        assert!(matches!(error, OpenError::Foreign { .. }), "{error}");
    }
    for path in [
        file("empty.db", b""),
        file("short.db", b"SQLite format 3\0\x10\0"),
    ] {
        let error = refused(&path).await;
        assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
    }
    let error = refused(folder.path()).await;
    assert!(matches!(error, OpenError::Foreign { .. }), "{error}");
}

#[tokio::test]
async fn a_database_of_another_program_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (name, mode) in [("delete.db", "DELETE"), ("wal.db", "WAL")] {
        let path = folder.path().join(name);
        let other = Connection::open(&path).unwrap();
        other.pragma_update(None, "journal_mode", mode).unwrap();
        other
            .execute_batch("CREATE TABLE runs (id TEXT); INSERT INTO runs VALUES ('theirs')")
            .unwrap();
        drop(other);
        let error = refused(&path).await;
        assert!(matches!(error, OpenError::Foreign { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_file_that_is_cut_off_anywhere_is_refused() {
    let fixture = closed().await;
    let whole = fs::read(&fixture.path).unwrap();
    assert!(whole.len() > 20 * 4096);
    for length in (1..whole.len()).step_by(4096 - 31).chain([
        99,
        100,
        512,
        4096,
        8192,
        whole.len() - 1,
        whole.len() - 4096,
    ]) {
        fs::write(&fixture.path, &whole[..length]).unwrap();
        let error = refused(&fixture.path).await;
        let expected = matches!(error, OpenError::Damaged { .. } | OpenError::Foreign { .. });
        assert!(expected, "{length} bytes: {error}");
    }
    fs::write(&fixture.path, &whole).unwrap();
    Db::open(&fixture.path).await.unwrap();
}

#[tokio::test]
async fn a_damaged_page_is_found() {
    let fixture = closed().await;
    let whole = fs::read(&fixture.path).unwrap();
    let mut found = 0;
    let pages = whole.len() / 4096;
    for page in 1..pages {
        let mut damaged = whole.clone();
        damaged[page * 4096..][..4096].fill(0xA5);
        fs::write(&fixture.path, &damaged).unwrap();
        let error = refused(&fixture.path).await;
        assert!(
            matches!(error, OpenError::Damaged { .. }),
            "page {page}: {error}"
        );
        found += 1;
    }
    assert!(found > 20);
}

#[tokio::test]
async fn a_wal_without_its_file_is_refused() {
    let fixture = closed().await;
    fs::remove_file(&fixture.path).unwrap();
    let wal = fixture.path.with_file_name("state.db-wal");
    fs::write(&wal, b"what is left").unwrap();
    let error = refused(&fixture.path).await;
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
}

#[tokio::test]
async fn a_newer_version_is_refused_also_when_only_the_wal_says_so() {
    let fixture = closed().await;
    let newer = Connection::open(&fixture.path).unwrap();
    newer.pragma_update(None, "user_version", 99).unwrap();
    // The connection stays, so the WAL does.
    let error = refused(&fixture.path).await;
    assert!(
        matches!(error, OpenError::Newer { found: 99, .. }),
        "{error}"
    );
    drop(newer);
    let error = refused(&fixture.path).await;
    assert!(
        matches!(error, OpenError::Newer { found: 99, .. }),
        "{error}"
    );
}

#[tokio::test]
async fn a_folder_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("no-such/state.db");
    let error = refused(&path).await;
    assert!(matches!(error, OpenError::File { .. }), "{error}");
    assert!(error.to_string().contains("no-such"), "{error}");
}

#[test]
fn is_refused_in_a_folder_that_cannot_be_written() {
    let Some(path) = role("read-only") else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let error = runtime.block_on(refused(&path));
    assert!(matches!(error, OpenError::File { .. }), "{error}");
    println!("refused as expected");
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_is_named() {
    let fixture = closed().await;
    let folder = fixture.path.parent().unwrap();
    fs::remove_file(folder.join("state.db.lock")).unwrap();
    let test = "opening::is_refused_in_a_folder_that_cannot_be_written";
    // Root may write everywhere but to a file system that is mounted read-only, which is done in a
    // mount namespace of the child; others obey the folder's mode.
    let folder = folder.to_str().unwrap();
    let before = format!(
        "if [ \"$(id -u)\" = 0 ] && [ -z \"$INSIDE\" ]; then
             INSIDE=1 exec unshare -m sh -ec 'mount -o bind {folder} {folder}; mount -o remount,ro,bind {folder}
             exec \"$0\" --exact \"$1\" --nocapture' \"$0\" \"$1\"
         fi
         chmod 555 {folder}"
    );
    let output = child(test, "read-only", &fixture.path, &before)
        .output()
        .unwrap();
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    let out = String::from_utf8_lossy(&output.stdout);
    if String::from_utf8_lossy(&output.stderr).contains("unshare failed") {
        eprintln!("SKIP(no mount namespaces): a folder that cannot be written");
        return;
    }
    assert!(output.status.success(), "{output:?}");
    assert!(out.contains("refused as expected"), "{out}");
}

#[tokio::test]
async fn one_that_is_only_dropped_is_closed_a_little_later() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let db = Db::open(&path).await.unwrap();
    db.write(|tx| tx.insert_run(&run("r1"))).await.unwrap();
    drop(db);
    let db = loop {
        match Db::open(&path).await {
            Ok(db) => break db,
            Err(OpenError::InUse { .. }) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    };
    let page = db.read(|rx| rx.unfinished_runs(PageOf::first(10))).await;
    assert_eq!(page.unwrap().items.len(), 1);
}
