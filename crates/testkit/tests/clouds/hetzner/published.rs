//! What is said with our cloud, held against the description of the API that others have written down.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use firelane_cloud::marker::Which;
use firelane_cloud::provider::Provider as _;
use firelane_testkit::clouds::Fault;
use firelane_testkit::clouds::hetzner::{Exchange, HetznerCloud};
use serde_json::{Value, json};

use super::others::PYTHON;
use super::{clear, hetzner, opened, patient, spec};

/// Names the folder with descriptions of APIs.
const SPECS: &str = "FIRELANE_SPECS";

/// What `published.py` has against what was said, a line for each.
fn wrong(said: &[Exchange]) -> Vec<String> {
    let python = std::env::var_os(PYTHON).expect("FIRELANE_HCLOUD names a Python");
    let specs = std::env::var_os(SPECS).expect("FIRELANE_SPECS names a folder");
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clouds/hetzner");
    let mut process = Command::new(python)
        .arg(PathBuf::from(folder).join("published.py"))
        .arg(PathBuf::from(specs).join("hetzner.json"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs");
    let mut stdin = process.stdin.take().expect("it is piped");
    for exchange in said {
        let line = serde_json::to_string(exchange).expect("it is JSON");
        writeln!(stdin, "{line}").expect("it reads");
    }
    drop(stdin);
    let output = process.wait_with_output().expect("it ends");
    assert!(output.status.success(), "it says on stderr why");
    let answer: Value = serde_json::from_slice(&output.stdout).expect("it writes JSON");
    assert_eq!(answer["looked_at"], said.len(), "it looks at everything");
    serde_json::from_value(answer["wrong"].clone()).expect("a list of texts")
}

#[tokio::test]
#[ignore = "needs FIRELANE_SPECS and Python: cargo xtask check brings the second"]
async fn what_is_said_is_as_it_is_published() {
    let cloud = HetznerCloud::start().await;
    let provider = patient(&cloud);
    let mut spec = spec("said", 1);
    provider.preflight(&spec).await.unwrap();
    provider.quote(&spec).await.unwrap();
    cloud.fail("POST /servers", Fault::Refused(412, "placement_error"));
    provider.create(&spec).await.unwrap_err();
    cloud.fail("POST /servers", Fault::Lost);
    provider.create(&spec).await.unwrap();
    hetzner(&cloud).create(&spec).await.unwrap();
    clear(&cloud, &provider, &Which::All, "all").await;
    spec.user_data.clear();
    cloud.fail_action("create_server", "placement_error");
    provider.create(&spec).await.unwrap_err();
    let wrong_token = opened(&cloud, "hushWrong").unwrap();
    wrong_token.create(&spec).await.unwrap_err();
    let said = cloud.said();
    let calls: std::collections::BTreeSet<_> = said.iter().map(Exchange::call).collect();
    assert_eq!(calls.len(), 16, "all calls that there are: {calls:?}");
    assert_eq!(wrong(&said), [""; 0]);
}

#[tokio::test]
#[ignore = "needs FIRELANE_SPECS and Python: cargo xtask check brings the second"]
async fn what_is_not_as_it_is_published_is_found() {
    let cloud = HetznerCloud::start().await;
    hetzner(&cloud).create(&spec("said", 1)).await.unwrap();
    let said = cloud.said();
    let found = said.iter().find(|one| one.call() == "POST /servers");
    let good = found.expect("a server was made");
    let broken = |change: fn(&mut Exchange)| {
        let mut bad = good.clone();
        change(&mut bad);
        wrong(&[bad])
    };
    assert_eq!(broken(|_| ()), [""; 0]);
    for (change, expected) in [
        (
            (|one: &mut Exchange| one.request["name"] = json!(7)) as fn(&mut Exchange),
            "request: name",
        ),
        (
            |one| one.request["labels"]["mvm-ephemeral"] = json!(true),
            "request: labels",
        ),
        (
            |one| one.request["colour"] = json!("red"),
            "request: colour is not published",
        ),
        (
            |one| one.answer["server"]["status"] = json!("resting"),
            "answer: server/status",
        ),
        (|one| one.answer["action"] = Value::Null, "answer: action"),
        (|one| one.path = "/servres".to_owned(), "no such path"),
        (
            |one| one.query = "colour=red".to_owned(),
            "query: colour is not published",
        ),
        (|one| one.status = 200, "no such status"),
    ] {
        let wrong = broken(change);
        let is_named = wrong.iter().any(|line| line.contains(expected));
        assert!(is_named, "{expected}: {wrong:?}");
    }
}
