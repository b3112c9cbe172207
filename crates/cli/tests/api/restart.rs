//! A service that is killed, and what is there when it is started again.

use std::collections::HashMap;
use std::fs::{OpenOptions, read_to_string};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use axum::http::Method;
use firelane_client::{Client, ClientError, Target};
use firelane_gateway::listen::Listener;
use firelane_model::id::RunId;
use firelane_wire::run::{Run, RunRequest, RunState};
use tokio::net::UnixListener;

use crate::child;
use crate::service::{Service, Setup};

const QUEUED: usize = 50;

/// Serves at a socket until it is killed, and writes down each run that its host is given. Its host has
/// one slot at first, and four when there is a database.
#[test]
fn serves_until_killed() {
    let Some(folder) = child::role("service") else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let first = !folder.join("db").exists();
        let slots = if first { 1 } else { 4 };
        let setup = Setup {
            slots,
            folder: Some(folder.clone()),
            ..Setup::default()
        };
        let service = Service::with(setup).await;
        let path = folder.join("sock");
        let _ = std::fs::remove_file(&path);
        service.listen(Listener::Local(UnixListener::bind(path).expect("a socket")));
        let mut begun = OpenOptions::new()
            .create(true)
            .append(true)
            .open(folder.join("begun"));
        let begun = begun.as_mut().expect("a file");
        let mut written = 0;
        loop {
            let news = service.begun.lock().expect("nobody panicked")[written..].to_vec();
            for (id, _) in news {
                writeln!(begun, "{id}").expect("it is written");
                written += 1;
            }
            service.report(slots, Vec::new()).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
}

/// A child that is killed when it is dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // SIGKILL; one that is dead already is waited for all the same.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn start(folder: &Path) -> (Killed, Client) {
    let mut command = child::command("restart::serves_until_killed", "service", folder);
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let child = Killed(child.expect("it is started"));
    let client = Client::new(Target::Unix(folder.join("sock")), None);
    eventually(async || client.ready().await.ok()).await;
    (child, client)
}

async fn eventually<T>(mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            // Another process: there is nothing here to be woken by.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let found = tokio::time::timeout(Duration::from_secs(30), looking).await;
    found.expect("it comes to this")
}

fn code(code: &str) -> RunRequest {
    let json = format!(r#"{{"lang":"python","code":"{code}"}}"#);
    serde_json::from_str(&json).expect("a request")
}

async fn ended(client: &Client, id: RunId) -> Run {
    eventually(async || match client.run(id).await {
        Ok(run) => run.state.is_final().then_some(run),
        Err(ClientError::Refused(problem)) => panic!("{problem}"),
        Err(_) => None,
    })
    .await
}

/// The same run for the same key.
async fn named(client: &Client, request: &RunRequest) -> RunId {
    let body = serde_json::to_vec(request).expect("JSON").into();
    let headers = [
        ("content-type", "application/json"),
        ("prefer", "respond-async"),
        ("idempotency-key", "once"),
    ];
    let raw = client
        .send(Method::POST, "/v1/runs", Some(body), &headers)
        .await;
    let raw = raw.expect("an answer");
    let run: Run = serde_json::from_slice(&raw.body).expect("a run");
    run.id
}

fn begun(folder: &Path) -> HashMap<String, usize> {
    let text = read_to_string(folder.join("begun")).unwrap_or_default();
    let mut counts = HashMap::new();
    for id in text.lines() {
        *counts.entry(id.to_owned()).or_insert(0) += 1;
    }
    counts
}

#[tokio::test]
async fn a_kill_loses_no_run_that_was_promised_and_runs_none_twice() {
    let files = tempfile::TempDir::with_prefix_in("fls-", "/tmp").expect("a folder");
    let folder: PathBuf = files.path().into();
    let (child, client) = start(&folder).await;
    let running = client.submit(&code("hold")).await.expect("it is taken");
    eventually(async || {
        begun(&folder)
            .contains_key(&running.id.to_string())
            .then_some(())
    })
    .await;
    let mut queued = Vec::new();
    for number in 0..QUEUED {
        let run = client.submit(&code(&format!("run {number}"))).await;
        queued.push(run.expect("it is taken"));
    }
    let once = named(&client, &code("named")).await;
    drop(child);

    let (_child, client) = start(&folder).await;
    for before in &queued {
        let after = ended(&client, before.id).await;
        assert_eq!(
            (after.state, &after.created_at),
            (RunState::Done, &before.created_at)
        );
    }
    assert_eq!(ended(&client, once).await.state, RunState::Done);
    assert_eq!(named(&client, &code("named")).await, once, "the same run");
    let lost = ended(&client, running.id).await;
    assert_eq!(lost.state, RunState::Failed);
    let cause = lost.problem.map(|problem| problem.cause);
    assert_eq!(cause.as_deref(), Some("the service ended while it ran"));
    let begun = eventually(async || {
        let begun = begun(&folder);
        (begun.len() >= QUEUED + 2).then_some(begun)
    })
    .await;
    assert!(begun.values().all(|times| *times == 1), "{begun:?}");
    assert_eq!(begun.len(), QUEUED + 2);
}
