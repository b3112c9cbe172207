//! Templates with a network in `firelane serve`: runs, the warm pool, sandboxes.

use firelane_client::Method;
use firelane_testkit::Lab;
use firelane_testkit::service::Service;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::world::{FAR, devices, nothing_is_left, on_a_host, tables, until};

const TEMPLATE: &str = r#"
description = "base with a network"
include = ["base"]

[network]
allow = ["far.example:80", "203.0.113.7:82"]
"#;
/// Reads from a place that a rule names, and fails to at one that none does.
const READS: &str = "
import socket
print(socket.create_connection(('far.example', 80), timeout=60).recv(100).decode())
try:
    socket.create_connection(('203.0.113.7', 81), timeout=1)
except OSError as error:
    print(type(error).__name__)
";
/// Says its name on one connection again and again, until that is cut; and sends where no rule leads, without end.
const TALKS: &str = "
import socket, threading, time
def stray():
    socket_ = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    while True:
        try:
            socket_.sendto(b'stray', ('203.0.113.7', 83))
        except OSError:
            pass
        time.sleep(0.02)
threading.Thread(target=stray, daemon=True).start()
far = socket.create_connection(('203.0.113.7', 82), timeout=60)
try:
    while True:
        far.sendall((socket.gethostname() + ' ').encode())
        time.sleep(0.05)
except OSError as error:
    with open('/work/cut', 'w') as file:
        file.write(type(error).__name__)
time.sleep(3600)
";

fn start<'a>(lab: &'a Lab, template: &str, more: &[&str]) -> Service<'a> {
    let far = FAR.to_string();
    Service::start_with(lab, template, &[("FIRELANE_RESOLVERS", &far)], more)
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a string")
}

/// Makes a sandbox, and gives its path.
fn make(service: &Service<'_>, template: &str) -> String {
    let request = json!({ "template": template });
    let sandbox = service.json(Method::POST, "/v1/sandboxes", Some(&request));
    format!("/v1/sandboxes/{}", text(&sandbox["id"]))
}

/// What a program writes to stdout.
fn program(service: &Service<'_>, sandbox: &str, code: &str) -> String {
    let request = json!({"lang": "python", "code": code});
    let exec = service.json(Method::POST, &format!("{sandbox}/execs"), Some(&request));
    assert_eq!(exec["ending"]["exit_code"], 0, "{exec}");
    text(&exec["output"]["stdout"]).to_owned()
}

/// What is counted in its network, as it is on record once its host has told.
fn counts(service: &Service<'_>, sandbox: &str) -> Value {
    service.json(Method::POST, &format!("{sandbox}:pause"), None);
    let record = service.json(Method::POST, &format!("{sandbox}:resume"), None);
    record["network"]["counts"].clone()
}

#[test]
fn runs_of_a_service_reach_what_their_template_allows_and_it_is_on_record() {
    let test = "runs_of_a_service_reach_what_their";
    on_a_host(test, TEMPLATE, |lab, far| {
        let service = start(lab, test, &["--pool-min", "1", "--pool-max", "1"]);
        for claims in 0..2 {
            service.until_warm(claims);
            let args = [
                "run",
                "--json",
                "--template",
                test,
                "--lang",
                "python",
                "-c",
                READS,
            ];
            let ended = lab.firelane(&args);
            assert_eq!(ended.code, 0, "{ended:?}");
            let report: Value = serde_json::from_str(&ended.stdout).unwrap();
            assert_eq!(report["origin"], "pool", "{report}");
            let out = text(&report["stdout"]);
            assert_eq!(out.lines().next(), Some("hello"), "{report}");
            // Its own, and not those of the clone before it.
            let network = &report["network"];
            assert_eq!(network["counts"]["flows"], 1, "{network}");
            assert!(network["counts"]["denied"].as_u64() > Some(0), "{network}");
            let lookups = &network["lookups"];
            assert_eq!(lookups[0]["name"], "far.example", "{network}");
            let listed = service.json(Method::GET, "/v1/runs", None);
            let run = &listed["items"][0];
            let run = service.json(Method::GET, &format!("/v1/runs/{}", text(&run["id"])), None);
            assert_eq!(&run["outcome"]["ran"]["network"], network, "{run}");
        }
        assert_eq!(far.greeted(), 2);
        // One with none has none.
        let plain = service.over(&service.submit("bash", "true"));
        assert_eq!(plain.outcome.unwrap().ran.network, None);
        assert_eq!(service.stop(), 0);
        nothing_is_left();
    });
}

#[test]
fn each_sandbox_has_a_network_of_its_own_and_its_forks_too() {
    let test = "each_sandbox_has_a_network";
    on_a_host(test, TEMPLATE, |lab, far| {
        let service = start(lab, test, &["--pool-max", "0", "--stand-by", "1"]);
        let (one, other) = (make(&service, test), make(&service, test));
        let read = program(&service, &one, READS);
        assert_eq!(read.lines().next(), Some("hello"), "{read}");
        let counted = counts(&service, &one);
        assert_eq!(counted["flows"], 1, "{counted}");
        assert!(counted["denied"].as_u64() > Some(0), "{counted}");
        // What one does is not counted at another, which has done nothing.
        let counted = counts(&service, &other);
        assert_eq!(
            (&counted["flows"], &counted["denied"]),
            (&Value::Null, &Value::Null)
        );
        let gone = service.json(Method::DELETE, &other, None);
        assert_eq!(gone["state"], "destroyed");

        let talk = json!({"lang": "python", "code": TALKS});
        let execs = format!("{one}/execs");
        let begun = service.client.send(
            Method::POST,
            &execs,
            Some(talk.to_string().into_bytes().into()),
            &[
                ("content-type", "application/json"),
                ("prefer", "respond-async"),
            ],
        );
        let begun = service.runtime.block_on(begun).unwrap();
        assert_eq!(begun.status.as_u16(), 202);
        let said = || far.talks().first().map_or(0, String::len);
        until("it talks", || said() > 0);
        let snapshot = service.json(Method::POST, &format!("{one}/snapshots"), None);

        // A fork goes on talking, but not on the connection of the one that it comes from.
        let forks = service.json(
            Method::POST,
            &format!("{one}:fork"),
            Some(&json!({"count": 1})),
        );
        let fork = format!(
            "/v1/sandboxes/{}",
            text(&forks["forks"][0]["sandbox"]["id"])
        );
        let cut = "import os; print(os.path.exists('/work/cut'))";
        until("its connection is cut", || {
            program(&service, &fork, cut) == "True\n"
        });
        let (before, name) = (said(), "import socket; print(socket.gethostname())");
        until("the other's goes on", || said() > before);
        assert_eq!(program(&service, &one, cut), "False\n");
        let names = [&one, &fork].map(|sandbox| program(&service, sandbox, name));
        assert_ne!(names[0], names[1]);
        let talks = far.talks();
        assert_eq!(talks.len(), 1, "{talks:?}");
        assert!(talks[0].contains(names[0].trim()), "{talks:?}");
        assert!(!talks[0].contains(names[1].trim()), "{talks:?}");
        // From its first moment on it was fenced.
        let counted = counts(&service, &fork);
        assert!(counted["denied"].as_u64() > Some(0), "{counted}");
        let read = program(&service, &fork, READS);
        assert_eq!(read.lines().next(), Some("hello"), "{read}");

        // One that goes back has another network, and what was counted is still told.
        let before = counts(&service, &one);
        let back = json!({"snapshot": snapshot["id"]});
        let record = service.json(Method::POST, &format!("{one}:rollback"), Some(&back));
        assert_eq!(record["state"], "running", "{record}");
        let read = program(&service, &one, READS);
        assert_eq!(read.lines().next(), Some("hello"), "{read}");
        let after = counts(&service, &one);
        assert!(
            after["flows"].as_u64() > before["flows"].as_u64(),
            "{before} {after}"
        );
        assert_eq!(far.stray(), 0);

        for sandbox in [&one, &fork] {
            let gone = service.json(Method::DELETE, sandbox, None);
            assert!(
                gone["network"]["counts"]["flows"].as_u64() > Some(0),
                "{gone}"
            );
        }
        assert_eq!(service.stop(), 0);
        nothing_is_left();
    });
}

#[test]
fn a_killed_service_leaves_no_network() {
    let test = "a_killed_service_leaves_no_network";
    on_a_host(test, TEMPLATE, |lab, _| {
        let service = start(lab, test, &["--pool-max", "0", "--stand-by", "1"]);
        make(&service, test);
        until("one waits beside it", || devices() == 2);
        service.running.signal(Signal::KILL);
        assert_eq!(service.running.end().code, -9);
        until("the devices are gone", || devices() == 0);
        assert!(tables().contains("fln"));
        // The next one sweeps.
        let service = start(lab, test, &["--pool-max", "0"]);
        nothing_is_left();
        assert_eq!(service.stop(), 0);
    });
}
