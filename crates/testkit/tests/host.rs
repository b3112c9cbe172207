//! What the host shows: doctor, shell, templates, benchmarks.

#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]

use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;

use firelane_testkit::Lab;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::Value;

fn doctor(lab: &Lab, template: &str) -> (i32, Value) {
    let ended = lab.firelane(&["doctor", "--json", "--template", template]);
    let report =
        serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"));
    (ended.code, report)
}

fn grade<'a>(report: &'a Value, name: &str) -> &'a str {
    let checks = report["checks"].as_array().unwrap();
    let check = checks.iter().find(|check| check["name"] == name);
    check.unwrap_or_else(|| panic!("no check {name}: {report}"))["grade"]
        .as_str()
        .unwrap()
}

#[test]
fn doctor_reads_the_controls_of_a_real_vmm() {
    let lab = Lab::new();
    let (code, report) = doctor(&lab, "base");
    assert_eq!(code, 0, "{report}");
    for control in ["no capabilities", "no new privileges", "seccomp filter"] {
        assert_eq!(grade(&report, control), "ok", "{report}");
    }
    let root = rustix::process::geteuid().is_root();
    for control in [
        "own user",
        "own mount namespace",
        "own network namespace",
        "own IPC namespace",
    ] {
        let expected: &[&str] = if root { &["ok"] } else { &["ok", "impossible"] };
        assert!(
            expected.contains(&grade(&report, control)),
            "{control} {report}"
        );
    }
    assert!(
        report["driver"].as_str().unwrap().starts_with("qemu ("),
        "{report}"
    );
    lab.assert_empty();
}

#[test]
fn doctor_names_what_is_missing_and_the_remedy() {
    let lab = Lab::new();
    let mut command = lab.command(&["doctor"]);
    command.env("FIRELANE_QEMU", "/nonexistent");
    let ended = firelane_testkit::Running::start(command, b"").end();
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.stdout.contains("MISSING     QEMU"), "{ended:?}");
    assert!(
        ended.stdout.contains("remedy: apt-get install"),
        "{ended:?}"
    );
}

/// A terminal: our end, and the program's.
fn terminal() -> (OwnedFd, OwnedFd) {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let name = ptsname(&ours, Vec::new()).unwrap();
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY;
    let theirs = rustix::fs::open(name, flags, rustix::fs::Mode::empty()).unwrap();
    (ours, theirs)
}

#[test]
fn a_shell_talks_through_the_terminal() {
    let lab = Lab::new();
    let (ours, theirs) = terminal();
    let mut command = lab.command(&["shell", "--template", "base"]);
    command
        .stdin(theirs.try_clone().unwrap())
        .stdout(theirs.try_clone().unwrap())
        .stderr(theirs);
    let mut child = command.spawn().unwrap();
    // The command holds the descriptors too; without it our end would never read an end.
    drop(command);
    let mut terminal = fs::File::from(ours);
    terminal
        .write_all(b"tty; echo $((6*7)); stty size; exit 5\n")
        .unwrap();
    let mut seen = Vec::new();
    let mut buffer = [0; 1024];
    // A terminal whose programs are gone gives an error in place of an end.
    while let Ok(count @ 1..) = terminal.read(&mut buffer) {
        seen.extend_from_slice(&buffer[..count]);
    }
    let seen = String::from_utf8_lossy(&seen);
    assert_eq!(child.wait().unwrap().code(), Some(5), "{seen}");
    assert!(seen.contains("/dev/pts/0") && seen.contains("42"), "{seen}");
    lab.assert_empty();
}

#[test]
fn a_template_of_ones_own_is_built_shown_used_and_removed() {
    let lab = Lab::new();
    lab.file("greeting.txt", "hello from the template\n");
    lab.file(
        "mine.toml",
        "description = \"mine\"\ninclude = [\"base\"]\npackages = [\"jq\"]\n\n[env]\nGREETING = \"hi\"\n\n\
         [files.\"opt/greeting.txt\"]\nsource = \"greeting.txt\"\n",
    );
    let built = lab.firelane(&["template", "build", "./mine.toml"]);
    assert_eq!(built.code, 0, "{built:?}");
    assert_eq!(built.stderr, "", "nothing is drawn when piped");
    let code = "echo $GREETING; cat /opt/greeting.txt; echo '{\"a\": 42}' | jq .a";
    let ended = lab.firelane(&["run", "--template", "mine", "--lang", "bash", "-c", code]);
    assert_eq!(
        ended.stdout, "hi\nhello from the template\n42\n",
        "{ended:?}"
    );
    let list = lab.firelane(&["template", "list"]);
    assert!(
        list.stdout
            .lines()
            .any(|line| line.starts_with("mine ") && line.ends_with("mine")),
        "{list:?}"
    );
    let show = lab.firelane(&["template", "show", "mine", "--json"]);
    let manifest: Value = serde_json::from_str(&show.stdout).unwrap();
    assert!(
        manifest["packages"]
            .as_array()
            .unwrap()
            .iter()
            .any(|package| package["name"] == "jq")
    );
    let removed = lab.firelane(&["template", "rm", "mine"]);
    assert_eq!(removed.code, 0, "{removed:?}");
    let gone = lab.firelane(&["run", "--template", "mine", "--lang", "bash", "-c", "true"]);
    assert_eq!(gone.code, 2, "{gone:?}");
    let base = lab.run_json("bash", "echo base stays", &[]);
    assert_eq!(base["stdout"], "base stays\n");
}

#[test]
fn bench_writes_every_sample_with_the_hosts_fingerprint() {
    let lab = Lab::new();
    let args = [
        "bench",
        "run",
        "--lang",
        "bash",
        "--runs",
        "2",
        "--template",
        "base",
        "--json",
        "samples.json",
    ];
    let ended = lab.firelane(&args);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.stdout.contains("guest_ready"), "{ended:?}");
    let samples: Value =
        serde_json::from_slice(&fs::read(lab.path().join("samples.json")).unwrap()).unwrap();
    assert_eq!(samples["runs"].as_array().unwrap().len(), 2);
    assert!(samples["runs"][0]["result"].as_f64() > samples["runs"][0]["guest_ready"].as_f64());
    assert!(
        samples["host"]["cpu"]
            .as_str()
            .is_some_and(|cpu| !cpu.is_empty())
    );
}
