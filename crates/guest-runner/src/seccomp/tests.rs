//! The filters as they are built: their sources are checked, and each answers as it should on this kernel.

#[expect(dead_code, reason = "the build uses all of it")]
#[path = "../../build/bpf.rs"]
mod bpf;
#[expect(dead_code, reason = "the build uses all of it")]
#[path = "../../build/sources.rs"]
mod sources;

use serde_json::Value;

use super::{PROBE, probe, verify};

/// The name of [`make_the_calls`].
pub(super) const CALLS: &str = "seccomp::tests::make_the_calls";

#[test]
#[ignore = "the other tests execute it behind each filter"]
fn make_the_calls() {
    let how = std::env::var(PROBE).unwrap();
    // With one thread the test's name is on the line already.
    println!();
    probe(Some(how.as_str()).filter(|how| !how.is_empty())).unwrap();
}

fn found() -> Value {
    let verdict = verify().unwrap();
    assert!(verdict.holds, "{}", verdict.report);
    serde_json::from_str(&verdict.report).unwrap()
}

#[test]
fn each_denied_call_gives_eperm_and_each_allowed_one_reaches_the_kernel() {
    let report = found();
    let filters = report["filters"].as_array().unwrap();
    assert_eq!(filters.len(), 5 * 6);
    for filter in filters {
        for probe in filter["probes"].as_array().unwrap() {
            assert_eq!(probe["found"], probe["expected"], "{filter}");
        }
    }
}

#[test]
fn what_is_denied_is_denied_by_the_filter_and_not_by_the_kernel() {
    let report = found();
    let probes = report["filters"][0]["probes"].as_array().unwrap();
    // Calls that need no rights, and that a container allows as well.
    for name in [
        "socket AF_INET",
        "socket AF_UNIX",
        "ptrace",
        "clone of a process",
        "ioctl TIOCSTI",
    ] {
        let probe = probes.iter().find(|probe| probe["name"] == name).unwrap();
        assert_eq!(probe["found"], "EPERM", "{probe}");
        assert_ne!(probe["without"], "EPERM", "{probe}");
    }
}

#[test]
fn sockets_come_with_the_tiers_that_have_them() {
    let report = found();
    let answer = |tier: &str, name: &str| {
        let filters = report["filters"].as_array().unwrap();
        let filter = filters
            .iter()
            .find(|filter| filter["tier"] == tier && filter["profile"] == "python");
        let probes = filter.unwrap()["probes"].as_array().unwrap();
        let probe = probes.iter().find(|probe| probe["name"] == name).unwrap();
        probe["found"].as_str().unwrap().to_owned()
    };
    let row = |tier| {
        ["socket AF_UNIX", "socket AF_INET", "socket AF_VSOCK"].map(|name| answer(tier, name))
    };
    assert_eq!(row("essential"), ["EPERM", "EPERM", "EPERM"]);
    assert_eq!(row("minimal"), ["EPERM", "EPERM", "EPERM"]);
    assert_eq!(row("standard"), ["allowed", "EPERM", "EPERM"]);
    assert_eq!(row("network"), ["allowed", "allowed", "EPERM"]);
    assert_eq!(row("unrestricted"), ["allowed", "allowed", "EPERM"]);
    assert_eq!(
        (
            answer("standard", "NoNewPrivs"),
            answer("standard", "Seccomp")
        ),
        ("1".into(), "2".into())
    );
}

fn refused(rules: &str, expected: &str) {
    let text = format!(
        "{{\"allow\": {{\"mismatch_action\": {{\"errno\": 1}}, \"match_action\": \"allow\", \"filter\": [{rules}]}}}}"
    );
    let error = sources::parse("made up", text.as_bytes())
        .and_then(|parsed| sources::check(&parsed).map_err(Into::into))
        .unwrap_err()
        .to_string();
    assert!(error.contains(expected), "{error}");
}

#[test]
fn a_name_that_is_no_system_call_fails_the_build() {
    refused("{\"syscall\": \"raed\"}", "raed");
    refused(
        "{\"syscall\": \"read\", \"arguments\": []}",
        "unknown field `arguments`",
    );
    refused("{\"syscall\": \"read\", \"args\": []}", "made up");
}

#[test]
fn a_system_call_that_is_listed_with_and_without_arguments_fails_the_build() {
    let bounded = "{\"syscall\": \"socket\", \"args\": [{\"index\": 0, \"type\": \"dword\", \"op\": \"eq\", \"val\": 1}]}";
    refused(
        &format!("{bounded}, {{\"syscall\": \"socket\"}}"),
        "socket is listed",
    );
}
