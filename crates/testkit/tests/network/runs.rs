//! `firelane run` of a template with a network.

use std::fs;
use std::process::Command;

use firelane_testkit::{Lab, Running};
use rustix::process::Signal;
use serde_json::Value;

use crate::world::{FAR, devices, nothing_is_left, on_a_host, until};

const TEMPLATE: &str = r#"
description = "base with a network"
include = ["base"]

[network]
allow = ["far.example:80"]
"#;
const PROGRAM: &str = r#"
import socket
def read(host, port, wait):
    try:
        with socket.create_connection((host, port), timeout=wait) as far:
            return far.recv(100).decode()
    except OSError:
        return "nothing"
print(read("far.example", 80, 60))
print(read("203.0.113.7", 81, 1))
print(read("169.254.169.254", 80, 1))
print(read("elsewhere.example", 80, 1))
"#;

fn firelane(lab: &Lab, test: &str, more: &[&str]) -> Command {
    let template = [
        "run",
        "--driver",
        "qemu",
        "--template",
        test,
        "--lang",
        "python",
    ];
    let mut command = lab.command(&[&template, more].concat());
    command.env("FIRELANE_RESOLVERS", FAR.to_string());
    command
}

#[test]
fn a_guest_reaches_what_its_template_allows() {
    let test = "a_guest_reaches_what_its_template_allows";
    on_a_host(test, TEMPLATE, |lab, _| {
        for (how, origin) in [(None, "snapshot"), (Some("--cold"), "boot")] {
            reaches(lab, test, how, origin);
        }
    });
}

fn reaches(lab: &Lab, test: &str, how: Option<&str>, origin: &str) {
    let mut words = vec!["--json", "-c", PROGRAM];
    words.extend(how);
    let ended = Running::start(firelane(lab, test, &words), b"").end();
    assert_eq!(ended.code, 0, "{ended:?}");
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(report["origin"], origin, "{report}");
    assert_eq!(
        report["stdout"], "hello\nnothing\nnothing\nnothing\n",
        "{report}"
    );
    let network = &report["network"];
    assert_eq!(network["counts"]["flows"], 1, "{network}");
    // Nobody speaks for the guest when it goes on.
    assert_eq!(network["counts"]["ethertype"], Value::Null, "{network}");
    let meetings = network["meetings"].as_array().unwrap();
    let met = |count: &str, address: &str, port: u16| {
        meetings.iter().any(|meeting| {
            (meeting["count"] == count) && meeting["address"] == address && meeting["port"] == port
        })
    };
    assert!(met("flows", "203.0.113.7", 80), "{network}");
    assert!(met("denied", "203.0.113.7", 81), "{network}");
    assert!(met("blocked", "169.254.169.254", 80), "{network}");
    let looked_up = |name: &str, outcome: &str| {
        let mut lookups = network["lookups"].as_array().unwrap().iter();
        lookups.any(|lookup| lookup["name"] == name && lookup["outcome"] == outcome)
    };
    assert!(looked_up("far.example", "answered"), "{network}");
    assert!(looked_up("elsewhere.example", "refused"), "{network}");
    nothing_is_left();
    lab.assert_empty();
}

#[test]
fn a_killed_run_leaves_no_network() {
    let test = "a_killed_run_leaves_no_network";
    on_a_host(test, TEMPLATE, |lab, _| {
        let waits = "import sys; print('here', flush=True); sys.stdin.read()";
        let mut killed = Running::start(firelane(lab, test, &["-c", waits]), b"");
        assert_eq!(killed.line(), "here\n");
        assert_eq!(devices(), 1);
        killed.signal(Signal::KILL);
        assert_eq!(killed.end().code, -9);
        // The kernel removes the namespace of a killed owner, and the device with it.
        until("the device is gone", || devices() == 0);
        let ended = Running::start(firelane(lab, test, &["-c", "print('next')"]), b"").end();
        assert_eq!(
            (ended.code, ended.stdout.as_str()),
            (0, "next\n"),
            "{ended:?}"
        );
        nothing_is_left();
        lab.assert_empty();
    });
}

#[test]
fn a_host_that_does_not_forward_is_named_with_the_remedy() {
    let test = "a_host_that_does_not_forward_is_named";
    on_a_host(test, TEMPLATE, |lab, _| {
        fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
        let ended = Running::start(firelane(lab, test, &["-c", "print(1)"]), b"").end();
        assert_eq!(ended.code, 125, "{ended:?}");
        assert!(
            ended.stderr.contains("sysctl -w net.ipv4.ip_forward=1"),
            "{ended:?}"
        );
        nothing_is_left();
        lab.assert_empty();
    });
}

#[test]
fn a_guest_that_warms_reaches_nobody() {
    let test = "a_guest_that_warms_reaches_nobody";
    let template = r#"
description = "tries the network before it is a snapshot"
include = ["base"]

[network]
allow = ["203.0.113.7:80"]

[warmup]
python = ["""
import socket
try:
    socket.create_connection(('203.0.113.7', 80), timeout=2)
    reached = True
except OSError:
    reached = False
with open('/tmp/reached', 'w') as file:
    file.write(str(reached))
"""]
"#;
    on_a_host(test, template, |lab, far| {
        let tells = "print(open('/tmp/reached').read())";
        // A snapshot of another tier than the template's is made here, on the test's own host.
        let words = ["--seccomp", "unrestricted", "--json", "-c", tells];
        let ended = Running::start(firelane(lab, test, &words), b"").end();
        assert_eq!(ended.code, 0, "{ended:?}");
        let report: Value = serde_json::from_str(&ended.stdout).unwrap();
        assert_eq!(report["origin"], "snapshot", "{report}");
        assert_eq!(report["stdout"], "False\n", "{report}");
        // Nor does what it sent go out when a clone goes on.
        assert_eq!(
            report["network"]["counts"]["flows"],
            Value::Null,
            "{report}"
        );
        assert_eq!(far.greeted(), 0);
        nothing_is_left();
        lab.assert_empty();
    });
}
