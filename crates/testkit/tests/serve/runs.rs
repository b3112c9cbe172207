//! Runs: what the service does with one program in a microVM of its own.

use std::net::TcpListener;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use firelane_client::Method;
use firelane_testkit::service::Service;
use firelane_testkit::{Ended, Lab};
use firelane_wire::run::{Origin, Run, RunState};
use rustix::process::Signal;

fn run(lab: &Lab, how: &[&str], lang: &str, code: &str, stdin: &[u8]) -> Ended {
    let args = ["run", "--template", "base", "--lang", lang, "-c", code];
    let (head, tail) = args.split_at(1);
    let all: Vec<&str> = head.iter().chain(how).chain(tail).copied().collect();
    lab.firelane_with(&all, stdin)
}

#[test]
fn a_run_by_the_service_is_like_one_of_our_own() {
    let lab = Lab::new();
    let service = Service::start(&lab, &[]);
    let programs = [
        (
            "python",
            "import sys\nprint(sys.stdin.read()[::-1])\nprint('e', file=sys.stderr)\nsys.exit(7)",
        ),
        ("bash", "cat; printf 'a\\xff\\n'; kill -9 $$"),
        ("bash", "echo $LANG $HOME $PWD; id -un; ulimit -a"),
    ];
    for (lang, code) in programs {
        let [served, own] = [&[][..], &["--local"]].map(|how| run(&lab, how, lang, code, b"input"));
        let shown = |ended: &Ended| (ended.code, ended.stdout_bytes.clone(), ended.stderr.clone());
        assert_eq!(shown(&served), shown(&own), "{lang}: {code}");
    }
    // It was the service.
    let request = service.client.send(Method::GET, "/v1/runs", None, &[]);
    let listed = service.runtime.block_on(request).unwrap();
    let listed: serde_json::Value = serde_json::from_slice(&listed.body).unwrap();
    assert_eq!(listed["items"].as_array().unwrap().len(), programs.len());
    assert_eq!(service.stop(), 0);
}

#[test]
fn files_go_in_and_out_and_what_is_missing_is_named() {
    let lab = Lab::new();
    let service = Service::start(&lab, &["--pool-max", "0"]);
    let content: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
    lab.file("in.bin", &content);
    let args = [
        "run",
        "--template",
        "base",
        "--lang",
        "bash",
        "--file",
        "in.bin:data/in.bin",
        "--out",
        "data/out.bin:out.bin",
        "--out",
        "empty:empty.bin",
        "--out",
        "none:none.bin",
        "-c",
        "cp data/in.bin data/out.bin; : > empty",
    ];
    let ended = lab.firelane(&args);
    assert_eq!(ended.code, 125, "{ended:?}");
    assert!(ended.stderr.contains("cannot fetch none"), "{ended:?}");
    assert_eq!(std::fs::read(lab.path().join("out.bin")).unwrap(), content);
    assert_eq!(std::fs::read(lab.path().join("empty.bin")).unwrap(), b"");
    assert!(!lab.path().join("none.bin").exists());
    assert_eq!(service.stop(), 0);
}

#[test]
fn a_restore_takes_a_vmm_that_waits_and_does_without_one_that_was_killed() {
    let lab = Lab::new();
    let service = Service::start(&lab, &["--pool-max", "0", "--stand-by", "1"]);
    let standing = || service.host().standing;
    let runs = |code: &str| {
        let run = service.over(&service.submit("bash", code));
        let outcome = run.outcome.as_ref().expect("it ran");
        assert_eq!(outcome.ran.origin, Origin::Snapshot, "{run:?}");
    };
    runs("true");
    service.until("a VMM waits", || standing().waiting == 1);
    assert_eq!((standing().hits, standing().misses), (0, 1));
    runs("true");
    service.until("the next one waits", || {
        standing().hits == 1 && standing().waiting == 1
    });
    let waiting = lab.microvms().pop().expect("it is on record");
    waiting.vmm().expect("it was started").kill().unwrap();
    service.until("it is dead", || !waiting.vmm().unwrap().lives());
    runs("true");
    service.until("it was found dead", || standing().misses == 2);
    waiting.assert_gone();
    assert_eq!(service.stop(), 0);
}

#[test]
fn clones_from_the_pool_are_used_once_and_are_like_no_other() {
    let lab = Lab::new();
    let service = Service::start(&lab, &["--pool-min", "2"]);
    let code = "import os, random, secrets, time, uuid, socket\n\
                print(os.urandom(16).hex(), random.random(), secrets.token_hex(8), uuid.uuid4(),\n\
                \x20     open('/etc/machine-id').read().strip(), socket.gethostname())\n\
                print(time.time_ns())\n\
                print(os.path.exists('/tmp/mark'))\n\
                open('/tmp/mark', 'w').write('left behind')";
    let mut seen: Vec<String> = Vec::new();
    for claims in 0..3 {
        service.until_warm(claims);
        let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let run = service.over(&service.submit("python", code));
        let after = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let outcome = run.outcome.expect("it ran");
        assert_eq!(outcome.ran.origin, Origin::Pool);
        let mut lines = outcome.stdout.lines();
        for drawn in lines.next().unwrap().split(' ') {
            assert!(!seen.iter().any(|old| old == drawn), "{drawn} came twice");
            seen.push(drawn.into());
        }
        let told = Duration::from_nanos(lines.next().unwrap().parse().unwrap());
        let slack = Duration::from_millis(50);
        assert!(
            before <= told + slack && told <= after + slack,
            "{before:?} {told:?} {after:?}"
        );
        assert_eq!(lines.next(), Some("False"), "a clone was used twice");
    }
    assert_eq!(service.stop(), 0);
}

#[test]
fn what_is_queued_survives_a_kill_and_runs_once() {
    let lab = Lab::new();
    let service = Service::start(&lab, &["--slots", "1", "--pool-max", "0"]);
    let first = service.submit("bash", "sleep 600");
    service.until("the first runs", || {
        service.look(&first).state == RunState::Running
    });
    let queued: Vec<Run> = (0..3)
        .map(|number| service.submit("bash", &format!("echo {number}")))
        .collect();
    assert!(
        queued
            .iter()
            .all(|run| service.look(run).state == RunState::Queued)
    );
    let microvms = lab.microvms();
    service.running.signal(Signal::KILL);
    assert_eq!(service.running.end().code, -9);

    let service = Service::start(&lab, &["--slots", "1", "--pool-max", "0"]);
    for microvm in microvms {
        service.until("what the dead service had is gone", || {
            !microvm.path.exists()
        });
        microvm.assert_gone();
    }
    let lost = service.over(&first);
    assert_eq!(lost.state, RunState::Failed);
    assert_eq!(
        lost.problem.unwrap().cause,
        "the service ended while it ran"
    );
    for (number, run) in queued.iter().enumerate() {
        let over = service.over(run);
        assert_eq!(over.state, RunState::Done);
        assert_eq!(over.outcome.unwrap().stdout, format!("{number}\n"));
    }
    assert_eq!(service.stop(), 0);
}

#[test]
fn a_service_that_is_asked_to_end_lets_runs_end_first() {
    let lab = Lab::new();
    let service = Service::start(&lab, &["--pool-max", "0"]);
    let short = service.submit("bash", "sleep 2; echo done");
    service.until("it runs", || {
        service.look(&short).state == RunState::Running
    });
    assert_eq!(service.stop(), 0);
    let service = Service::start(&lab, &["--pool-max", "0", "--drain", "1s"]);
    assert_eq!(service.look(&short).outcome.unwrap().stdout, "done\n");
    let long = service.submit("bash", "sleep 600");
    service.until("it runs", || service.look(&long).state == RunState::Running);
    assert_eq!(service.stop(), 4);
    let service = Service::start(&lab, &["--pool-max", "0"]);
    let lost = service.look(&long);
    assert_eq!(lost.state, RunState::Failed);
    assert!(lost.problem.unwrap().cause.contains("went down"));
    assert_eq!(service.stop(), 0);
}

#[test]
fn many_runs_one_after_the_other_and_at_once_leave_nothing() {
    let lab = Lab::new();
    let count = |name: &str, default: usize| {
        let set = std::env::var(name).ok();
        set.map_or(default, |text| text.parse().expect("a number"))
    };
    let one_by_one = count("FIRELANE_SOAK_SEQUENTIAL", 10);
    let at_once = count("FIRELANE_SOAK_CONCURRENT", 10);
    let service = Service::start(&lab, &["--pool-min", "1"]);
    for number in 0..one_by_one {
        let ended = run(&lab, &[], "python", &format!("print({number})"), b"");
        assert_eq!((ended.code, &*ended.stderr), (0, ""), "run {number}");
        assert_eq!(ended.stdout, format!("{number}\n"));
    }
    let runs: Vec<Run> = (0..at_once)
        .map(|number| service.submit("python", &format!("print({number})")))
        .collect();
    for (number, run) in runs.iter().enumerate() {
        let over = service.over(run);
        assert_eq!(over.outcome.expect("it ran").stdout, format!("{number}\n"));
    }
    assert_eq!(service.stop(), 0);
}

#[test]
fn two_services_do_not_share_a_database_or_a_socket() {
    let lab = Lab::new();
    let service = Service::start(&lab, &["--pool-max", "0"]);
    let state = lab.path().join("state");
    let second = [
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--template",
        "base",
        "--state",
    ];
    let mut args = second.to_vec();
    args.push(state.to_str().unwrap());
    let ended = lab.firelane(&args);
    assert_eq!(ended.code, 125);
    assert!(
        ended.stderr.contains("is in use by another process"),
        "{ended:?}"
    );
    let other = lab.path().join("other");
    args[second.len()] = other.to_str().unwrap();
    let ended = lab.firelane(&args);
    assert_eq!(ended.code, 125);
    assert!(
        ended.stderr.contains("serve.sock is served already"),
        "{ended:?}"
    );
    assert_eq!(service.stop(), 0);
}

#[test]
fn keys_are_made_listed_and_revoked_and_the_audit_says_so() {
    let lab = Lab::new();
    let service = Service::start(&lab, &["--pool-max", "0"]);
    let made = lab.firelane(&[
        "key", "create", "--name", "ci", "--scopes", "run", "--rate", "9/m",
    ]);
    assert_eq!(made.code, 0, "{made:?}");
    let token = made.stdout.trim();
    let (id, _) = token.split_once('.').expect("an id and a secret");
    let listed = lab.firelane(&["key", "list"]);
    assert!(
        listed.stdout.contains(id) && !listed.stdout.contains(token),
        "{listed:?}"
    );
    assert_eq!(lab.firelane(&["key", "revoke", id]).code, 0);
    assert!(lab.firelane(&["key", "list"]).stdout.contains("revoked"));
    let unknown = lab.firelane(&["key", "revoke", "key-00000000000000000000000000000000"]);
    assert_eq!(unknown.code, 2, "{unknown:?}");
    assert_eq!(service.stop(), 0);
    let state = lab.path().join("state");
    let audit = ["audit", "verify", "--state", state.to_str().unwrap()];
    let verified = lab.firelane(&audit);
    assert_eq!(verified.code, 0, "{verified:?}");
    assert!(
        verified.stdout.starts_with("2 rows, unbroken"),
        "{verified:?}"
    );
    let nobody = lab.firelane(&["key", "list"]);
    assert_eq!(nobody.code, 125);
    assert!(
        nobody.stderr.contains("remedy: start it: firelane serve"),
        "{nobody:?}"
    );
}

#[test]
fn a_collector_that_never_answers_holds_up_neither_runs_nor_the_end() {
    let lab = Lab::new();
    // Connections wait here, and nobody takes them.
    let collector = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", collector.local_addr().unwrap());
    let service = Service::start(&lab, &["--pool-max", "0", "--otlp-endpoint", &url]);
    let run = service.over(&service.submit("bash", "echo 1"));
    assert_eq!(run.outcome.expect("it ran").stdout, "1\n");
    let id = run.id.to_string();
    assert_eq!(run.trace_id.as_deref(), id.strip_prefix("run-"));
    assert_eq!(service.stop(), 0);
    // It was asked.
    collector.set_nonblocking(true).unwrap();
    collector.accept().unwrap();
}

#[test]
fn what_is_no_collector_is_wrong_usage() {
    let lab = Lab::new();
    let ended = lab.firelane(&["serve", "--otlp-endpoint", "https://me:secret@localhost"]);
    assert_eq!(ended.code, 2, "{ended:?}");
    assert!(ended.stderr.contains("--otlp-endpoint: "), "{ended:?}");
    assert!(!ended.stderr.contains("secret"), "{ended:?}");
}
