//! A VMM that cuts its guests off when it saves them, as Firecracker does: nothing of a program is lost, and a
//! sandbox that cannot be reached again is ended and says so.

use std::sync::Arc;

use firelane_model::id::{ExecId, SnapshotId};
use firelane_model::sandbox::Reason;
use firelane_testkit::Lab;
use firelane_testkit::booted::qemu;
use firelane_testkit::cutting::{Cutting, Fate};
use firelane_wire::bus::*;
use firelane_wire::event::{End, Input};
use firelane_wire::problem::Problem;
use firelane_wire::sandbox::SandboxState;
use serde_json::json;

use crate::host::{Host, done};

/// Counts from 1, without an end.
const COUNTER: &str = "for ((i = 1; ; i++)); do echo $i; read -t 0.05 <> <(:); done";
/// Says what it is told, and writes it down.
const ECHO: &str = "while read line; do echo $line > /work/said; echo $line; done; echo over";
/// Lines that are told while the sandbox is saved.
const LINES: u32 = 60;

async fn start() -> (Host, Arc<Cutting>) {
    let lab = Lab::new();
    let driver = Arc::new(Cutting::new(Arc::new(qemu(&lab)), lab.path()));
    let host = Host::start_with(lab, Arc::clone(&driver) as Arc<_>).await;
    (host, driver)
}

async fn begin(host: &Host, sandbox: &SandboxRef, script: &str) -> ExecId {
    let exec = json!({"lang": "bash", "code": script, "interactive": true});
    host.start_exec(sandbox, exec).await
}

async fn feed(host: &Host, sandbox: &SandboxRef, id: ExecId, input: Input) {
    let sandbox = sandbox.clone();
    let fed = host.ask(FeedExec { sandbox, id, input }).await;
    fed.unwrap();
}

async fn tell(host: &Host, sandbox: &SandboxRef, id: ExecId, line: &str) {
    let line = Input::Stdin(format!("{line}\n").into_bytes());
    feed(host, sandbox, id, line).await;
}

async fn save(host: &Host, sandbox: &SandboxRef) -> Result<SnapshotId, Problem> {
    let snapshot = SnapshotId::from_bits(host.name());
    let sandbox = sandbox.clone();
    host.ask(SaveSandbox { sandbox, snapshot }).await?;
    Ok(snapshot)
}

/// That a counter has said each number up to at least this one, once.
async fn counts_to(host: &Host, sandbox: &SandboxRef, counter: ExecId, least: usize) -> usize {
    let lines = host.until(sandbox, counter, &least.to_string()).await;
    for (number, line) in (1..).zip(&lines[..least]) {
        assert_eq!(*line, number.to_string());
    }
    lines.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_of_a_sandbox_that_is_cut_off_lose_nothing() {
    let (host, _driver) = start().await;
    let sandbox = host.make(json!({})).await;
    let counter = begin(&host, &sandbox, COUNTER).await;
    let echo = begin(&host, &sandbox, ECHO).await;
    counts_to(&host, &sandbox, counter, 3).await;

    // They are written to and read from all the time.
    let telling = async {
        for number in 1..=LINES {
            tell(&host, &sandbox, echo, &number.to_string()).await;
        }
    };
    let saving = async {
        let first = save(&host, &sandbox).await.unwrap();
        save(&host, &sandbox).await.unwrap();
        first
    };
    let ((), snapshot) = tokio::join!(telling, saving);
    let said = host.until(&sandbox, echo, &LINES.to_string()).await;
    let told: Vec<String> = (1..=LINES).map(|number| number.to_string()).collect();
    assert_eq!(said, told);
    let so_far = counts_to(&host, &sandbox, counter, 3).await;
    counts_to(&host, &sandbox, counter, so_far + 5).await;
    // A file that is asked for goes over the new connection, and so does a program that begins.
    assert_eq!(
        host.output(&sandbox, "cat /work/said").await,
        format!("{LINES}\n")
    );

    // The same programs go on in each fork, by themselves.
    let forks: Vec<_> = (0..4).map(|_| host.new_ref()).collect();
    let split = SplitSandbox {
        sandbox: sandbox.clone(),
        forks: forks.iter().map(|fork| fork.id).collect(),
    };
    let made = host.ask(split).await.unwrap();
    let failed = made.iter().filter(|made| made.is_err()).count();
    assert_eq!((made.len(), failed), (4, 1), "{made:?}");
    let ours = forks.iter().zip(&made).filter(|(_, made)| made.is_ok());
    for (number, (fork, _)) in ours.enumerate() {
        let line = format!("fork {number}");
        tell(&host, fork, echo, &line).await;
        host.until(fork, echo, &line).await;
        assert_eq!(
            host.output(fork, "cat /work/said").await,
            format!("{line}\n")
        );
        host.tell(fork, SandboxOrder::Destroy).await.unwrap();
    }

    // One that is paused is saved as well, and stays paused; its programs are there when it goes on.
    host.tell(&sandbox, SandboxOrder::Pause).await.unwrap();
    save(&host, &sandbox).await.unwrap();
    host.reaches(&sandbox, SandboxState::Paused).await;
    tell(&host, &sandbox, echo, "awake").await;
    host.until(&sandbox, echo, "awake").await;
    let so_far = counts_to(&host, &sandbox, counter, 3).await;
    counts_to(&host, &sandbox, counter, so_far + 5).await;

    // Back to the first instant: what was told since then is told no more.
    host.tell(&sandbox, SandboxOrder::RollBack { snapshot })
        .await
        .unwrap();
    let said = host.output(&sandbox, "cat /work/said || echo 0").await;
    // The instant may be between the moment the file was emptied and the one it was written.
    let number = Some(said.trim()).filter(|said| !said.is_empty());
    let number = number.map_or(0, |said| said.parse::<u32>().unwrap());
    assert!(number <= LINES, "{said}");
    tell(&host, &sandbox, echo, "again").await;
    host.until(&sandbox, echo, "again").await;
    feed(&host, &sandbox, echo, Input::End).await;
    let (text, end) = host.end_of(&sandbox, echo).await;
    assert!(text.ends_with("over\n"), "{text}");
    assert_eq!(done(&end).exit_code, 0);
    host.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_that_is_cut_off_and_not_saved_goes_on() {
    let (host, driver) = start().await;
    let sandbox = host.make(json!({})).await;
    let echo = begin(&host, &sandbox, ECHO).await;
    tell(&host, &sandbox, echo, "one").await;
    host.until(&sandbox, echo, "one").await;
    driver.set_fate(Fate::NotSaved);
    let problem = save(&host, &sandbox).await.unwrap_err();
    assert!(problem.cause.contains("it was told to fail"), "{problem}");
    tell(&host, &sandbox, echo, "two").await;
    assert_eq!(host.until(&sandbox, echo, "two").await, ["one", "two"]);
    assert_eq!(host.output(&sandbox, "cat /work/said").await, "two\n");
    assert_eq!(host.ask(HaveSnapshots {}).await.unwrap(), []);
    driver.set_fate(Fate::Saved);
    save(&host, &sandbox).await.unwrap();
    tell(&host, &sandbox, echo, "three").await;
    let said = host.until(&sandbox, echo, "three").await;
    assert_eq!(said, ["one", "two", "three"]);
    host.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_that_is_cut_off_for_good_ends_and_says_so() {
    let (host, driver) = start().await;
    let sandbox = host.make(json!({})).await;
    let echo = begin(&host, &sandbox, ECHO).await;
    tell(&host, &sandbox, echo, "one").await;
    host.until(&sandbox, echo, "one").await;
    driver.set_fate(Fate::Deaf);
    let problem = save(&host, &sandbox).await.unwrap_err();
    for said in ["the sandbox is ended", "it was told to fail"] {
        assert!(problem.cause.contains(said), "{problem}");
    }
    let seen = host.reaches(&sandbox, SandboxState::Destroyed).await;
    assert_eq!(seen.reason, Some(Reason::VmmDied));
    let (text, end) = host.end_of(&sandbox, echo).await;
    assert_eq!(text, "one\n");
    match end {
        End::Failed(problem) => assert!(problem.cause.contains("was cut off"), "{problem}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(host.ask(HaveSnapshots {}).await.unwrap(), []);
    host.lab.assert_empty();
    host.end().await;
}
