//! A database in a folder of its own, records to put in, and this program as a child process.

use std::path::{Path, PathBuf};
use std::process::Command;

use firelane_store::db::{Db, Finish, Key, NewRun, OutputPart, RunEnd};
use tempfile::TempDir;

pub(crate) struct Fixture {
    pub(crate) db: Db,
    pub(crate) path: PathBuf,
    _folder: TempDir,
}

impl Fixture {
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        Self {
            db: Db::open(&path).await.unwrap(),
            path,
            _folder: folder,
        }
    }

    pub(crate) async fn reopen(&mut self) {
        self.db.close().await;
        self.db = Db::open(&self.path).await.unwrap();
    }
}

pub(crate) fn run(id: &str) -> NewRun {
    NewRun {
        id: id.to_owned(),
        tenant: "t1".to_owned(),
        key_id: Some("k1".to_owned()),
        durable: true,
        priority: 5,
        deadline: Some(9_000),
        about: r#"{"lang":"python"}"#.to_owned(),
        spec: r#"{"code":"1"}"#.to_owned(),
        created: 1_000,
    }
}

pub(crate) fn finish(id: &str, attempt: u32, state: RunEnd) -> Finish {
    Finish {
        id: id.to_owned(),
        attempt,
        state,
        outcome: Some(r#"{"exit_code":0}"#.to_owned()),
        output: vec![part(3, b"\0events\xff"), part(5, b"more")],
        finished: 3_000,
    }
}

pub(crate) fn part(last: u64, events: &[u8]) -> OutputPart {
    let events = events.to_owned();
    OutputPart { last, events }
}

pub(crate) fn key(id: &str, tenant: &str) -> Key {
    Key {
        id: id.to_owned(),
        tenant: tenant.to_owned(),
        name: "for the tests".to_owned(),
        scopes: "run,sandbox".to_owned(),
        limits: r#"{"rate":10}"#.to_owned(),
        secret_hash: [7; 32],
        created: 1_000,
        revoked_at: None,
        last_used: None,
    }
}

/// Which test of this program to be, in a child process, and on which database.
const ROLE: &str = "FIRELANE_STORE_TEST_ROLE";

/// The database that this process is to work on, if it is a child with this role.
pub(crate) fn role(name: &str) -> Option<PathBuf> {
    let value = std::env::var(ROLE).ok()?;
    let (role, path) = value.split_once('=').unwrap();
    (role == name).then(|| PathBuf::from(path))
}

/// This test program as a child that runs one test with a role. The test is found by `test`; `before`
/// is shell that runs first, in the same process.
pub(crate) fn child(test: &str, role: &str, path: &Path, before: &str) -> Command {
    let mut command = Command::new("sh");
    let script = format!("{before}\nexec \"$0\" --exact \"$1\" --nocapture --test-threads=1");
    command.arg("-c").arg(script);
    command.arg(std::env::current_exe().unwrap()).arg(test);
    command.env(ROLE, format!("{role}={}", path.display()));
    command
}

/// Every byte of the database: the file, and its WAL, which may as well be missing as empty.
pub(crate) fn bytes(path: &Path) -> [Option<Vec<u8>>; 2] {
    let mut wal = path.as_os_str().to_owned();
    wal.push("-wal");
    let wal = std::fs::read(wal).ok();
    [std::fs::read(path).ok(), wal.filter(|wal| !wal.is_empty())]
}
