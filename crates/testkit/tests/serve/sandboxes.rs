//! Sandboxes over HTTP, in microVMs.

use firelane_client::Method;
use firelane_testkit::Lab;
use firelane_testkit::service::Service;
use rustix::process::Signal;
use serde_json::{Value, json};

/// Makes a sandbox of the small template, and gives its path.
fn make(service: &Service<'_>, more: &Value) -> String {
    let mut request = json!({"template": "base"});
    for (name, value) in more.as_object().expect("fields") {
        request[name] = value.clone();
    }
    let sandbox = service.json(Method::POST, "/v1/sandboxes", Some(&request));
    assert_eq!(sandbox["state"], "running", "{sandbox}");
    format!("/v1/sandboxes/{}", text(&sandbox["id"]))
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a string")
}

/// What a script writes, and its exit code.
fn script(service: &Service<'_>, sandbox: &str, code: &str) -> (String, Value) {
    let request = json!({"lang": "bash", "code": code});
    let exec = service.json(Method::POST, &format!("{sandbox}/execs"), Some(&request));
    let written = text(&exec["output"]["stdout"]).to_owned();
    (written, exec["ending"]["exit_code"].clone())
}

#[test]
fn a_sandbox_is_used_over_http_from_its_first_program_to_its_forks() {
    let lab = Lab::new();
    let service = Service::start(&lab, &["--pool-max", "0"]);
    let sandbox = make(&service, &json!({"labels": {"for": "tests"}}));
    assert_eq!(
        script(&service, &sandbox, "echo hello; exit 4"),
        ("hello\n".into(), 4.into())
    );

    // A file of more than one message, in and out, whole and in part.
    let content: Vec<u8> = (0..2_000_000_u32).map(|n| (n % 253) as u8).collect();
    let file = format!("{sandbox}/files/work/data");
    let (status, _) = service.ask(Method::PUT, &file, Some(&content));
    assert!((200..300).contains(&status), "{status}");
    assert_eq!(script(&service, &sandbox, "wc -c < data").0, "2000000\n");
    let (status, back) = service.ask(Method::GET, &file, None);
    assert_eq!((status, back == content), (200, true));
    let ranged = service
        .client
        .send(Method::GET, &file, None, &[("range", "bytes=100-199")]);
    let part = service.runtime.block_on(ranged).expect("an answer");
    assert_eq!(
        (part.status.as_u16(), &part.body[..]),
        (206, &content[100..200])
    );
    let (status, archive) = service.ask(Method::GET, &format!("{sandbox}/archives/work"), None);
    assert_eq!((status, archive.len() > content.len()), (200, true));
    let (status, _) = service.ask(
        Method::PUT,
        &format!("{sandbox}/archives/tmp/copy"),
        Some(&archive),
    );
    assert!((200..300).contains(&status), "{status}");
    assert_eq!(
        script(&service, &sandbox, "cmp data /tmp/copy/data; echo $?").0,
        "0\n"
    );
    let (status, _) = service.ask(Method::GET, &format!("{sandbox}/files/etc/shadow"), None);
    assert_eq!(status, 400);

    // What runs in it goes on in its forks.
    let request =
        json!({"lang": "bash", "code": "n=0; while sleep 0.1; do echo $((++n)) > n; done"});
    let execs = format!("{sandbox}/execs");
    let begun = service.client.send(
        Method::POST,
        &execs,
        Some(request.to_string().into_bytes().into()),
        &[
            ("content-type", "application/json"),
            ("prefer", "respond-async"),
        ],
    );
    let begun = service.runtime.block_on(begun).expect("an answer");
    assert_eq!(begun.status.as_u16(), 202);
    let counted = |sandbox: &str| {
        script(&service, sandbox, "cat n")
            .0
            .trim()
            .parse::<u64>()
            .unwrap_or(0)
    };
    service.until("it counts", || counted(&sandbox) > 2);
    let paused = service.json(Method::POST, &format!("{sandbox}:pause"), None);
    assert_eq!(paused["state"], "paused");
    let forks = service.json(
        Method::POST,
        &format!("{sandbox}:fork"),
        Some(&json!({"count": 2})),
    );
    let forks = forks["forks"].as_array().expect("forks");
    assert_eq!(forks.len(), 2);
    for fork in forks {
        let fork = format!("/v1/sandboxes/{}", text(&fork["sandbox"]["id"]));
        let begun = counted(&fork);
        assert!(begun > 2);
        service.until("it goes on in the fork", || counted(&fork) > begun);
        let gone = service.json(Method::DELETE, &fork, None);
        assert_eq!(
            (&gone["state"], &gone["reason"]),
            (&"destroyed".into(), &"asked".into())
        );
        let (status, _) = service.ask(Method::GET, &format!("{fork}/execs"), None);
        assert_eq!(status, 404);
    }
    assert_eq!(service.stop(), 0);
}

#[test]
fn a_killed_service_tells_of_its_sandboxes_and_keeps_their_snapshots() {
    let lab = Lab::new();
    let service = Service::start(&lab, &["--pool-max", "0"]);
    let sandbox = make(&service, &json!({}));
    script(&service, &sandbox, "echo kept > file");
    let snapshot = service.json(Method::POST, &format!("{sandbox}/snapshots"), None);
    script(&service, &sandbox, "echo later > file");
    service.until("a VMM waits", || service.host().standing.waiting == 1);
    let microvms = lab.microvms();
    assert_eq!(microvms.len(), 2);
    service.running.signal(Signal::KILL);
    assert_eq!(service.running.end().code, -9);

    let service = Service::start(&lab, &["--pool-max", "0"]);
    service.until("its record says so", || {
        let sandbox = service.json(Method::GET, &sandbox, None);
        (&sandbox["state"], &sandbox["reason"]) == (&"destroyed".into(), &"host_restarted".into())
    });
    for microvm in microvms {
        service.until("its microVM is gone", || !microvm.path.exists());
        microvm.assert_gone();
    }
    let again = make(&service, &json!({"snapshot": snapshot["id"]}));
    assert_eq!(script(&service, &again, "cat file").0, "kept\n");
    let (status, _) = service.ask(
        Method::DELETE,
        &format!("/v1/snapshots/{}", text(&snapshot["id"])),
        None,
    );
    assert!((200..300).contains(&status), "{status}");
    assert_eq!(service.stop(), 0);
}
