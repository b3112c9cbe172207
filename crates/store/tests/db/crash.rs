//! SIGKILL.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use firelane_store::db::{Db, RunState};
use tokio::task::JoinSet;

use crate::records::{child, role, run};

#[test]
fn inserts_until_killed() {
    let Some(path) = role("crash") else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let db = Db::open(&path).await.unwrap();
        let mut callers = JoinSet::new();
        for caller in 0..8 {
            let db = db.clone();
            callers.spawn(async move {
                for i in 0.. {
                    let id = format!("r{caller}-{i}");
                    let started = id.clone();
                    db.write(move |tx| {
                        tx.insert_run(&run(&started))?;
                        tx.start_run(&started, 0, 2_000)
                    })
                    .await
                    .unwrap();
                    // One write, so that a line is whole or its end is missing.
                    let line = format!("\nacknowledged {id} .\n");
                    std::io::stdout().write_all(line.as_bytes()).unwrap();
                }
            });
        }
        callers.join_all().await;
    });
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged = Vec::new();
    for round in 1..=4 {
        // A new one each time: it inserts the same names.
        let path = folder.path().join(format!("state{round}.db"));
        let mut child = child("crash::inserts_until_killed", "crash", &path, "")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut ids = Vec::new();
        let mut read = |line: String| {
            if let Some(id) = line.strip_prefix("acknowledged ")
                && let Some(id) = id.strip_suffix(" .")
            {
                ids.push(id.to_owned());
            }
            ids.len()
        };
        while read(lines.next().expect("it writes until it is killed").unwrap()) < 150 * round {}
        child.kill().unwrap();
        child.wait().unwrap();
        for line in lines {
            read(line.unwrap());
        }
        let db = Db::open(&path).await.unwrap();
        for id in ids {
            let asked = id.clone();
            let found = db.read(move |rx| rx.run(&asked)).await.unwrap();
            let found = found.unwrap_or_else(|| panic!("{id} was acknowledged, and is lost"));
            assert_eq!(
                (found.head.state, found.head.attempt),
                (RunState::Running, 1)
            );
            acknowledged.push(id);
        }
        db.close().await;
    }
    assert!(acknowledged.len() >= 1500, "{}", acknowledged.len());
}
