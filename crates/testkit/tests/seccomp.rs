//! What programs may ask of the guest's kernel: every way in which one starts leads through the filter.

#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]

use std::process::Command;
use std::time::Duration;

use firelane_guest_proto::message::{ExecSpec, Limits, Program, PtySize};
use firelane_guest_proto::{Lang, SESSION_PORT};
use firelane_testkit::{Lab, Running};
use firelane_vmm::connect::connect;
use firelane_vmm::session::{Event, Session};
use serde_json::Value;
use tokio::time::Instant;

/// What the kernel says of the process that reads it, as a command of bash.
const STATUS: &str =
    "grep -E '^(NoNewPrivs|Seccomp|Cap[A-Za-z]*):' /proc/self/status | tr -d '\\t\\n'";
/// No capability that it has, could get or could pass on; no new privileges; a filter, and one only.
const CONFINED: &str = "CapInh:0000000000000000CapPrm:0000000000000000CapEff:0000000000000000\
                        CapBnd:0000000000000000CapAmb:0000000000000000NoNewPrivs:1Seccomp:2";
/// Opens sockets and prints the error's number, or 0.
const SOCKETS: &str = "import socket\n\
                       def o(family):\n    try: socket.socket(family, socket.SOCK_DGRAM).close(); return 0\n    except OSError as e: return e.errno\n\
                       print(o(socket.AF_INET), o(socket.AF_INET6), o(socket.AF_UNIX), o(socket.AF_VSOCK))";

fn stdout(report: &Value) -> &str {
    report["stdout"].as_str().unwrap()
}

fn sockets(more: &[&str]) -> String {
    let lab = Lab::new();
    let report = lab.run_json("python", SOCKETS, more);
    lab.assert_empty();
    stdout(&report).trim().to_owned()
}

#[test]
fn a_socket_to_the_network_is_refused_unless_the_tier_has_them() {
    assert_eq!(sockets(&[]), "1 1 0 1");
    assert_eq!(sockets(&["--seccomp", "minimal"]), "1 1 1 1");
    assert_eq!(sockets(&["--seccomp", "network"]), "0 0 0 1");
    assert_eq!(sockets(&["--seccomp", "unrestricted"]), "0 0 0 1");
}

#[test]
fn a_guest_that_was_booted_has_the_same_tiers() {
    assert_eq!(sockets(&["--cold"]), "1 1 0 1");
    assert_eq!(sockets(&["--cold", "--seccomp", "network"]), "0 0 0 1");
}

#[test]
fn a_template_has_the_tier_that_its_definition_names() {
    let lab = Lab::new();
    lab.file(
        "talks.toml",
        "description = \"with sockets\"\nseccomp = \"network\"\ninclude = [\"base\"]\n",
    );
    let built = lab.firelane(&["template", "build", "./talks.toml"]);
    assert_eq!(built.code, 0, "{built:?}");
    let run = |more: &[&str]| {
        let args = ["run", "--template", "talks", "--lang", "python"];
        let ended = lab.firelane(&[&args[..], more, &["-c", SOCKETS]].concat());
        assert_eq!(ended.code, 0, "{ended:?}");
        ended.stdout
    };
    assert_eq!(run(&[]), "0 0 0 1\n");
    assert_eq!(run(&["--seccomp", "standard"]), "1 1 0 1\n");
    let shown = lab.firelane(&["template", "show", "talks"]);
    assert!(shown.stdout.contains("seccomp      network\n"), "{shown:?}");
    let removed = lab.firelane(&["template", "rm", "talks"]);
    assert_eq!(removed.code, 0, "{removed:?}");
}

#[test]
fn the_essential_tier_computes_and_starts_nothing() {
    let lab = Lab::new();
    let code = "import os, threading\n\
                threads = []; t = threading.Thread(target=lambda: threads.append(1)); t.start(); t.join()\n\
                open('/tmp/x', 'w').write('y')\n\
                try: os.fork()\nexcept OSError as e: print(sum(range(10)), threads, open('/tmp/x').read(), e.errno)";
    let report = lab.run_json("python", code, &["--seccomp", "essential"]);
    assert_eq!(stdout(&report), "45 [1] y 1\n", "{report}");
    let report = lab.run_json(
        "bash",
        "echo $((6 * 7)); /bin/true",
        &["--seccomp", "essential"],
    );
    assert_eq!(stdout(&report), "42\n", "{report}");
    assert_ne!(report["exit_code"], 0, "{report}");
}

#[test]
fn every_language_runs_in_the_tiers_below_the_usual_one() {
    let programs = [
        ("python", "import json; print(json.dumps({'a': 6 * 7}))"),
        ("bash", "printf '{\"a\": %d}\\n' $((6 * 7))"),
        (
            "node",
            "Promise.resolve(42).then(a => setTimeout(() => console.log(`{\"a\": ${a}}`), 1))",
        ),
        ("ruby", "Thread.new { puts %({\"a\": #{6 * 7}}) }.join"),
        (
            "rust",
            "fn main() { std::thread::spawn(|| println!(\"{{\\\"a\\\": {}}}\", 6 * 7)).join().unwrap() }",
        ),
    ];
    let lab = Lab::new();
    for tier in ["essential", "minimal"] {
        for (lang, code) in programs {
            let args = [
                "run",
                "--timeout",
                "120",
                "--seccomp",
                tier,
                "--lang",
                lang,
                "-c",
                code,
            ];
            let ended = lab.firelane(&args);
            assert_eq!(
                (ended.code, ended.stdout.as_str()),
                (0, "{\"a\": 42}\n"),
                "{tier}: {ended:?}"
            );
            assert_eq!(ended.stderr, "", "{tier}: {ended:?}");
        }
    }
    lab.assert_empty();
}

/// Each language's own program, and one that it starts.
#[test]
fn every_language_is_behind_its_filter() {
    let check = |lang: &str, code: &str| {
        let lab = Lab::new();
        let args = ["run", "--timeout", "120", "--lang", lang, "-c", code];
        let ended = lab.firelane(&args);
        assert_eq!(ended.stdout, CONFINED.to_owned() + CONFINED, "{ended:?}");
        lab.assert_empty();
    };
    let child = format!("\"{}\"", STATUS.replace('\\', "\\\\"));
    check(
        "python",
        &format!(
            "import re, subprocess\n\
             print(*re.findall('(?m)^(?:NoNewPrivs|Seccomp|Cap.*):.*', open('/proc/self/status').read().replace('\\t', '')), sep='', end='', flush=True)\n\
             subprocess.run(['bash', '-c', {child}])"
        ),
    );
    check(
        "node",
        &format!(
            "const text = require('fs').readFileSync('/proc/self/status', 'utf8').replaceAll('\\t', '');\n\
             process.stdout.write(text.match(/^(NoNewPrivs|Seccomp|Cap.*):.*/gm).join(''));\n\
             process.stdout.write(require('child_process').execFileSync('bash', ['-c', {child}]));"
        ),
    );
    check(
        "ruby",
        &format!(
            "$stdout.sync = true\n\
             print File.read('/proc/self/status').delete(\"\\t\").scan(/^(?:NoNewPrivs|Seccomp|Cap.*):.*/).join\n\
             system('bash', '-c', {child})"
        ),
    );
    check(
        "rust",
        &format!(
            "fn main() {{\n\
             let text = std::fs::read_to_string(\"/proc/self/status\").unwrap().replace('\\t', \"\");\n\
             let ours = |line: &&str| [\"Cap\", \"NoNewPrivs:\", \"Seccomp:\"].iter().any(|name| line.starts_with(name));\n\
             print!(\"{{}}\", text.lines().filter(ours).collect::<String>());\n\
             std::io::Write::flush(&mut std::io::stdout()).unwrap();\n\
             std::process::Command::new(\"bash\").args([\"-c\", {child}]).status().unwrap(); }}"
        ),
    );
    check(
        "bash",
        &format!(
            "while read -r line; do case $line in Cap*|NoNewPrivs:*|Seccomp:*) printf %s \"${{line//[[:blank:]]/}}\";; esac; done </proc/self/status; {STATUS}"
        ),
    );
}

/// What a program says, however it was started.
async fn exec(session: &Session, program: Program, pty: bool) -> String {
    let spec = ExecSpec {
        trace_id: "test".into(),
        program,
        env: Vec::new(),
        cwd: None,
        limits: Limits {
            timeout_ms: 300_000,
            ..Limits::default()
        },
        pty: pty.then_some(PtySize {
            rows: 24,
            cols: 400,
        }),
    };
    let mut exec = session.exec(&spec).await.unwrap();
    exec.stdin().end().await.unwrap();
    let mut said = Vec::new();
    loop {
        match exec.next().await.unwrap() {
            Event::Stdout(bytes) | Event::Stderr(bytes) => said.extend(bytes),
            Event::Ended(_) => return String::from_utf8(said).unwrap(),
            Event::Started => {}
        }
    }
}

#[tokio::test]
async fn every_way_to_start_a_program_leads_through_the_filter() {
    let lab = Lab::new();
    let args = ["run", "--template", "base", "--timeout", "10m", "--lang"];
    let command = lab.command(&[&args[..], &["bash", "-c", "echo up; read -r x"]].concat());
    let mut running = Running::start(command, b"");
    assert_eq!(running.line(), "up\n");
    let vsock = lab.microvms()[0].path.join("v.sock");
    let deadline = Instant::now() + Duration::from_secs(30);
    let stream = connect(&vsock, SESSION_PORT, deadline).await.unwrap();
    let session = Session::open(stream).await.unwrap();
    let code = |lang, source: &str| Program::Code {
        lang,
        source: source.into(),
        args: Vec::new(),
    };
    let python = format!("import os\nos.execvp('bash', ['bash', '-c', r\"\"\"{STATUS}\"\"\"])");
    // The parked interpreter, then twice a fork of the zygote.
    for _ in 0..3 {
        assert_eq!(
            exec(&session, code(Lang::Python, &python), false).await,
            CONFINED
        );
    }
    // The parked shell is the program that still runs: a fresh one.
    assert_eq!(
        exec(&session, code(Lang::Bash, STATUS), false).await,
        CONFINED
    );
    let command = || Program::Command {
        argv: ["bash", "-c", STATUS].map(String::from).to_vec(),
    };
    assert_eq!(exec(&session, command(), false).await, CONFINED);
    assert_eq!(exec(&session, command(), true).await, CONFINED);
    assert_eq!(
        exec(&session, code(Lang::Python, &python), true).await,
        CONFINED
    );
    drop(session);
    assert_eq!(running.end().code, 1);
    lab.assert_empty();
}

#[test]
fn the_filters_are_verified_without_a_microvm() {
    let lab = Lab::new();
    let ended = lab.firelane(&["verify", "seccomp", "--json"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(report["filters"].as_array().unwrap().len(), 5 * 6);
    assert!(!lab.run_dir().exists(), "it made a run directory");
    let ended = lab.firelane(&["verify", "seccomp"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(ended.stdout.lines().count(), 1 + 5 * 6, "{ended:?}");
}

#[test]
fn a_filter_that_answers_otherwise_is_named() {
    let lab = Lab::new();
    let lying = "#!/bin/sh\necho '{\"filters\":[{\"tier\":\"standard\",\"profile\":\"node\",\"instructions\":1,\"probes\":\
                 [{\"name\":\"unshare\",\"expected\":\"EPERM\",\"found\":\"allowed\",\"without\":\"allowed\",\"holds\":false}]}]}'\nexit 1\n";
    lab.file("guest", lying);
    let made = Command::new("chmod")
        .arg("755")
        .arg(lab.path().join("guest"))
        .status();
    assert!(made.unwrap().success());
    let mut command = lab.command(&["verify", "seccomp"]);
    command.env("FIRELANE_GUEST", lab.path().join("guest"));
    let ended = Running::start(command, b"").end();
    assert_eq!(ended.code, 1, "{ended:?}");
    let line = "WRONG: standard for node: unshare gives allowed and should give EPERM\n";
    assert!(ended.stdout.ends_with(line), "{ended:?}");
}

#[test]
fn an_unknown_tier_is_wrong_usage_that_names_those_there_are() {
    let lab = Lab::new();
    let ended = lab.firelane(&["run", "--seccomp", "none", "--lang", "bash", "-c", "true"]);
    assert_eq!(ended.code, 2, "{ended:?}");
    assert!(
        ended
            .stderr
            .contains("known: essential, minimal, standard, network, unrestricted"),
        "{ended:?}"
    );
}
