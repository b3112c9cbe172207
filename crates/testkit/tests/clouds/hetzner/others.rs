//! What is somebody else's: made, and read back, by `hcloud`, Hetzner's own client for Python.

use std::collections::BTreeSet;
use std::process::Command;

use firelane_cloud::marker::Which;
use firelane_cloud::provider::Provider as _;
use firelane_testkit::clouds::hetzner::{HetznerCloud, TOKEN};
use serde_json::{Value, json};

use super::{give_back, hetzner, spec};

/// Names the Python that has `hcloud` and `jsonschema`.
pub(super) const PYTHON: &str = "FIRELANE_HCLOUD";

/// What `look.py` answers to a command.
async fn look(cloud: &HetznerCloud, command: &'static str) -> Value {
    let url = cloud.url();
    let run = move || {
        let python = std::env::var_os(PYTHON).expect("FIRELANE_HCLOUD names a Python");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clouds/hetzner/look.py");
        let output = Command::new(python)
            .args([script, command, &url])
            .env("HCLOUD_TOKEN", TOKEN)
            .output()
            .expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        serde_json::from_slice(&output.stdout).expect("it writes JSON")
    };
    let answer = tokio::task::spawn_blocking(run).await;
    answer.expect("it does not panic")
}

#[tokio::test]
#[ignore = "needs hcloud: cargo xtask check brings it"]
async fn hetzners_own_client_sees_what_was_asked_for() {
    let cloud = HetznerCloud::start().await;
    let provider = hetzner(&cloud);
    let spec = spec("seen", 1);
    let machine = provider.create(&spec).await.unwrap();
    let seen = look(&cloud, "look").await;
    let name = format!("firelane-{}", spec.lane);
    let labels = json!({
        "mvm-ephemeral": "true",
        "firelane-label": "seen",
        "firelane-lane": spec.lane.to_string(),
        "firelane-owner": "tester",
        "firelane-created": "1795000000",
        "firelane-expires": "1795014400",
    });
    let expected = json!({
        "servers": [{
            "id": machine.handle.id, "name": name, "status": "running", "type": "cx33", "image": "Ubuntu 24.04",
            "location": "fsn1", "labels": labels, "address": machine.address, "firewalls": [name],
        }],
        "firewalls": [{
            "name": name, "labels": labels, "servers": [machine.handle.id],
            "rules": [["in", "tcp", "22", ["198.51.100.0/24"], "firelane owner tester"]],
        }],
        "keys": [{ "name": name, "labels": labels, "public_key": spec.ssh_key }],
    });
    assert_eq!(seen, expected);
}

#[tokio::test]
#[ignore = "needs hcloud: cargo xtask check brings it"]
async fn what_others_made_is_never_touched() {
    let cloud = HetznerCloud::start().await;
    let provider = hetzner(&cloud);
    // Servers, a firewall and a key: without labels, with half of ours, with a marker that is not true.
    let decoys = look(&cloud, "decoys").await;
    let ids = |seen: &Value| {
        let servers = seen["servers"].as_array().expect("a list");
        servers
            .iter()
            .map(|one| one["id"].as_str().expect("a text").to_owned())
            .collect::<BTreeSet<_>>()
    };
    assert_eq!(ids(&decoys).len(), 3);
    assert_eq!(provider.list(&Which::All).await.unwrap(), []);
    let mine = spec("mine", 1);
    provider.create(&mine).await.unwrap();
    for which in [Which::Label(mine.label.clone()), Which::All] {
        for machine in provider.list(&which).await.unwrap() {
            give_back(&provider, &machine.handle).await;
        }
        let swept = provider.sweep(&which).await.unwrap();
        assert_eq!(swept.left, [], "{which:?}");
    }
    assert_eq!(look(&cloud, "look").await, decoys);
}

#[tokio::test]
#[ignore = "needs hcloud: cargo xtask check brings it"]
async fn a_name_that_somebody_else_has_is_not_taken_for_ours() {
    let cloud = HetznerCloud::start().await;
    let provider = hetzner(&cloud);
    // `look.py` gives names of lane 7.
    for (command, what) in [
        ("server", "server"),
        ("firewall", "firewall"),
        ("key", "key"),
    ] {
        look(&cloud, command).await;
        let before = cloud.counts();
        let error = provider.create(&spec("name", 7)).await.unwrap_err();
        let message = format!("there is a {what} firelane-{}", spec("name", 7).lane);
        assert!(error.message.starts_with(&message), "{error}");
        assert!(error.message.ends_with("it is not of this lane"), "{error}");
        assert_eq!(cloud.counts(), before, "{what}");
        look(&cloud, "clear").await;
    }
}
