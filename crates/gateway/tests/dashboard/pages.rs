//! What is on the pages, and what is not.

use axum::http::{Request, StatusCode};
use firelane_wire::event::Event;
use firelane_wire::host::{Host, Pool, Standing};
use firelane_wire::key::Scope;

use crate::fake::{OWNER, Service, ended, run};

/// What a stranger would like to see as markup.
const HOSTILE: &str = "\"'></pre></script><script>alert(1)</script><img src=x onerror=alert(1)>";

fn host() -> Host {
    Host {
        id: "box".into(),
        driver: "firecracker".into(),
        acceleration: "kvm".into(),
        slots: 4,
        running: 2,
        sandboxes: 1,
        pools: vec![Pool {
            template: "base".into(),
            lang: "python".into(),
            ready: 2,
            preparing: 1,
            min: 1,
            max: 4,
            hits: 17,
            misses: 5,
        }],
        standing: Standing::default(),
        version: "9.9".into(),
    }
}

/// No markup of a stranger's is in it.
fn assert_tame(text: &str) {
    assert!(
        text.contains("&lt;script&gt;"),
        "nothing hostile was shown: {text}"
    );
    for tag in ["<script>", "<img src=x"] {
        assert!(!text.contains(tag), "{tag} in {text}");
    }
}

#[tokio::test]
async fn the_overview_shows_hosts_pools_queue_and_runs() {
    let service = Service::start(false).await;
    service.say(|said| {
        said.hosts.push(host());
        said.runs.push(run(7));
        said.log = vec![ended(3, &[("renewed", 5.0), ("result", 30.0)])];
    });
    let page = service.get("/", "").await;
    assert_eq!(page.status, StatusCode::OK);
    for text in [
        "firecracker",
        "kvm",
        "9.9",
        "17",
        "1–4",
        "about <strong>1.50 s",
        "/runs/run-00000000000000000000000000000007",
        "exit bad\">3<",
        "2.50 s",
        "Phases: renewed 5.0 ms, result 25 ms",
        "<textarea",
    ] {
        assert!(page.text.contains(text), "{text:?} is not in {}", page.text);
    }
    let parts = service.get("/overview", "").await;
    for id in ["queue", "hosts", "pools", "runs"] {
        assert!(parts.text.contains(&format!("id=\"{id}\"")), "{id}");
    }
    assert!(
        !parts.text.contains("<textarea"),
        "the box is not refreshed"
    );
}

#[tokio::test]
async fn an_empty_overview_says_what_to_do() {
    let service = Service::start(false).await;
    let page = service.get("/", "").await;
    for text in [
        "firelane doctor",
        "firelane serve --warm",
        "Nothing has run yet",
    ] {
        assert!(page.text.contains(text), "{text}");
    }
}

#[tokio::test]
async fn how_a_run_ended_is_read_once() {
    let service = Service::start(false).await;
    service.say(|said| {
        said.runs.push(run(7));
        said.log = vec![ended(0, &[("result", 30.0)])];
    });
    for _ in 0..3 {
        service.get("/", "").await;
    }
    service.say(|said| assert_eq!(said.reads, 1));
}

#[tokio::test]
async fn what_strangers_wrote_is_text() {
    let service = Service::start(false).await;
    let mut hostile = run(7);
    hostile.template = HOSTILE.into();
    hostile.labels.insert(HOSTILE.into(), HOSTILE.into());
    service.say(|said| {
        said.hosts.push(Host {
            id: HOSTILE.into(),
            driver: HOSTILE.into(),
            acceleration: HOSTILE.into(),
            version: HOSTILE.into(),
            pools: vec![Pool {
                template: HOSTILE.into(),
                lang: HOSTILE.into(),
                ..host().pools[0].clone()
            }],
            ..host()
        });
        said.runs.push(hostile);
        said.log = vec![
            Event::Stdout(HOSTILE.into()),
            Event::Stderr(b"\xff\x1b[31m<script>".into()),
            ended(0, &[(HOSTILE, 3.0)]),
        ];
    });
    for path in [
        "/",
        "/overview",
        "/runs/run-00000000000000000000000000000007",
    ] {
        let page = service.get(path, "").await;
        assert_eq!(page.status, StatusCode::OK, "{path}");
        assert_tame(&page.text);
    }
    let page = service.get("/runs/%3Cscript%3E", "").await;
    assert_eq!(page.status, StatusCode::NOT_FOUND);
    assert_tame(&page.text);
}

#[tokio::test]
async fn a_run_has_its_output_in_order_and_its_facts() {
    let service = Service::start(false).await;
    service.say(|said| {
        said.runs.push(run(7));
        said.log = vec![
            Event::Stdout(b"one ".into()),
            Event::Stdout(b"two".into()),
            Event::Stderr(b"three".into()),
            Event::Stdout(b"four".into()),
            ended(124, &[("connected", 5.0), ("result", 30.0)]),
        ];
    });
    let page = service
        .get("/runs/run-00000000000000000000000000000007", "")
        .await;
    let at = |text: &str| {
        page.text
            .find(text)
            .unwrap_or_else(|| panic!("{text} is not there"))
    };
    assert!(at("one two") < at("three") && at("three") < at("four"));
    assert!(page.text.contains("exit bad\">124<"), "{}", page.text);
    assert!(page.text.contains("a session with it is open"));
    assert!(!page.text.contains("data-follow"), "it is over");
}

#[tokio::test]
async fn a_list_shows_some_labels_and_the_page_of_the_run_all() {
    let service = Service::start(false).await;
    let mut labelled = run(7);
    for number in 0..5 {
        labelled
            .labels
            .insert(format!("name{number}"), "value".into());
    }
    service.say(|said| said.runs.push(labelled));
    let list = service.get("/", "").await;
    assert!(list.text.contains("name2") && !list.text.contains("name3"));
    assert!(list.text.contains("and 2 more"));
    let page = service
        .get("/runs/run-00000000000000000000000000000007", "")
        .await;
    assert!(page.text.contains("name4") && !page.text.contains(" more"));
}

#[tokio::test]
async fn output_over_the_cap_is_told_and_left_out() {
    let service = Service::start(false).await;
    service.say(|said| {
        said.runs.push(run(7));
        said.log = vec![Event::Stdout(vec![b'x'; 300 << 10]), ended(0, &[])];
    });
    let page = service
        .get("/runs/run-00000000000000000000000000000007", "")
        .await;
    assert!(page.text.len() < 270 << 10, "{}", page.text.len());
    assert!(page.text.contains("44.0 KiB more"));
}

#[tokio::test]
async fn every_page_has_the_headers_that_keep_scripts_out() {
    let service = Service::start(true).await;
    let token = service.key(1, &[Scope::Run]);
    let cookie = service.log_in(&token).await.cookie();
    service.say(|said| said.runs.push(run(7)));
    let paths = [
        ("/", cookie.as_str()),
        ("/", ""),
        ("/overview", &cookie),
        ("/runs/run-00000000000000000000000000000007", &cookie),
        ("/runs/nothing", &cookie),
        ("/login", ""),
    ];
    for (path, cookie) in paths {
        let page = service.get(path, cookie).await;
        let policy = page.header("content-security-policy");
        for rule in [
            "default-src 'none'",
            "script-src 'self'",
            "frame-ancestors 'none'",
        ] {
            assert!(policy.contains(rule), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{path}: {policy}");
        assert_eq!(page.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(page.header("referrer-policy"), "no-referrer", "{path}");
        assert_eq!(page.header("cache-control"), "no-store", "{path}");
        assert!(!page.text.contains(" style="), "{path}");
    }
}

#[tokio::test]
async fn assets_are_named_by_their_content_and_kept() {
    let service = Service::start(true).await;
    let page = service.get("/login", "").await;
    let mut found = 0;
    for part in page
        .text
        .split('"')
        .filter(|part| part.starts_with("/assets/"))
    {
        let asset = service.get(part, "").await;
        assert_eq!(asset.status, StatusCode::OK, "{part}");
        assert!(
            asset.header("cache-control").contains("immutable"),
            "{part}"
        );
        found += 1;
    }
    assert!(found >= 3, "style, script and icon");
    let gone = service
        .get("/assets/dashboard.0000000000000000.js", "")
        .await;
    assert_eq!(gone.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_owner_of_the_socket_needs_no_session() {
    let service = Service::start(true).await;
    let check = async |uid, expected| {
        let peer = firelane_gateway::listen::Peer::Local { uid };
        let page = service.ask(Request::get("/").extension(peer), "").await;
        assert_eq!(page.status, expected, "uid {uid}");
    };
    check(OWNER, StatusCode::OK).await;
    check(OWNER + 1, StatusCode::SEE_OTHER).await;
}
