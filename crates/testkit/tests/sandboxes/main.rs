//! Sandboxes of an agent, in microVMs, over the Bus: what the coordinator and the gateway ask of it.

#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]

mod cut;
mod host;

use std::time::{SystemTime, UNIX_EPOCH};

use firelane_model::id::SnapshotId;
use firelane_model::sandbox::Reason;
use firelane_wire::bus::*;
use firelane_wire::event::{End, Input};
use firelane_wire::file::FileEventKind;
use firelane_wire::problem::Code;
use firelane_wire::sandbox::{Idle, IdleThen, NewSandbox, SandboxState};
use serde_json::json;
use tokio::time::Instant;

use crate::host::{Host, done, get};

#[tokio::test(flavor = "multi_thread")]
async fn programs_share_a_sandbox_and_leave_nothing_when_it_goes() {
    let host = Host::start().await;
    let sandbox = host.make(json!({"env": {"WHO": "all"}})).await;
    let script = "echo \"$WHO $OWN\"; read line; echo \"got $line\"; exit 3";
    let exec = json!({"lang": "bash", "code": script, "env": {"OWN": "one"}, "interactive": true});
    let first = host.start_exec(&sandbox, exec).await;
    host.until(&sandbox, first, "all one").await;
    // Another runs beside it, and they see the same files.
    let said = host.output(&sandbox, "echo here > /work/file; pwd").await;
    assert_eq!(said, "/work\n");
    let feed = FeedExec {
        sandbox: sandbox.clone(),
        id: first,
        input: Input::Stdin(b"it\n".to_vec()),
    };
    host.ask(feed.clone()).await.unwrap();
    let (said, end) = host.end_of(&sandbox, first).await;
    assert_eq!(
        (said.as_str(), done(&end).exit_code),
        ("all one\ngot it\n", 3)
    );
    let command = json!({"command": ["cat", "file"]});
    let second = host.start_exec(&sandbox, command).await;
    assert_eq!(host.end_of(&sandbox, second).await.0, "here\n");

    let list = host
        .ask(ListExecs {
            sandbox: sandbox.clone(),
        })
        .await
        .unwrap();
    assert_eq!(list.len(), 3);
    assert_eq!(list[0].id, second);
    assert!(list.iter().all(|exec| !exec.running));
    // What has ended takes no input.
    let problem = host.ask(feed).await.unwrap_err();
    assert_eq!(problem.code, Code::Conflict);
    // Another tenant sees nothing of it.
    let theirs = SandboxRef {
        tenant: "others".into(),
        ..sandbox.clone()
    };
    let problem = host.ask(ListExecs { sandbox: theirs }).await.unwrap_err();
    assert_eq!(problem.code, Code::NotFound);

    let seen = host.tell(&sandbox, SandboxOrder::Destroy).await.unwrap();
    assert_eq!(seen.state, SandboxState::Destroyed);
    assert_eq!(seen.reason, Some(Reason::Asked));
    assert!(seen.cpu_us > 0);
    host.lab.assert_empty();
    host.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_go_in_and_out_whatever_their_size() {
    let host = Host::start().await;
    let sandbox = host.make(json!({})).await;
    let content: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let put = host.put(&sandbox, "/work/big", &content).await.unwrap();
    assert_eq!(put.bytes, content.len() as u64);
    assert_eq!(
        host.receive(&sandbox, get("/work/big")).await.unwrap(),
        content
    );
    let part = Piped::Get {
        path: "/work/big".into(),
        offset: 1_000,
        length: 500,
    };
    assert_eq!(
        host.receive(&sandbox, part).await.unwrap(),
        content[1_000..1_500]
    );

    // One that breaks off leaves what was there.
    let what = Piped::Put {
        path: "/work/big".into(),
        size: 10,
        mode: 0o600,
    };
    let problem = host.send(&sandbox, what.clone(), b"few").await.unwrap_err();
    assert_eq!(problem.code, Code::Invalid, "{problem}");
    let problem = host.send(&sandbox, what, &[0; 11]).await.unwrap_err();
    assert_eq!(problem.code, Code::Invalid, "{problem}");
    assert_eq!(
        host.output(&sandbox, "wc -c < /work/big").await,
        "3000000\n"
    );
    let problem = host.put(&sandbox, "/etc/passwd", b"x").await.unwrap_err();
    assert_eq!(problem.code, Code::Invalid, "{problem}");

    // What changes is told.
    let watch = OpenPipe {
        sandbox: sandbox.clone(),
        what: Piped::Watch {
            path: "/work".into(),
            recursive: true,
        },
    };
    let pipe = host.ask(watch).await.unwrap().pipe;
    let make = MakeFolder {
        sandbox: sandbox.clone(),
        path: "/work/a/b".into(),
    };
    host.ask(make).await.unwrap();
    host.put(&sandbox, "/work/a/b/c", b"see").await.unwrap();
    let mut told = Vec::new();
    while !told.iter().any(|path| path == "a/b/c") {
        let wait_ms = 20_000;
        let part = host.ask(ReadPipe { pipe, wait_ms }).await.unwrap();
        let created = part.events.into_iter();
        let created = created.filter(|event| event.kind == FileEventKind::Created);
        told.extend(created.map(|event| event.path));
    }
    assert!(told.contains(&"a".to_owned()), "{told:?}");
    host.ask(ClosePipe { pipe }).await.unwrap();

    // A folder as an archive, and back under another name.
    let pack = Piped::Pack {
        path: "/work/a".into(),
    };
    let archive = host.receive(&sandbox, pack).await.unwrap();
    let unpack = |path: &str| Piped::Unpack { path: path.into() };
    let unpacked = host
        .send(&sandbox, unpack("/work/z"), &archive)
        .await
        .unwrap();
    assert_eq!(unpacked.bytes, 3);
    assert_eq!(host.output(&sandbox, "cat /work/z/b/c").await, "see");
    let problem = host
        .send(&sandbox, unpack("/work/y"), b"no archive at all")
        .await;
    assert_eq!(problem.unwrap_err().code, Code::Invalid);

    let list = |after: &[u8], limit| ListFolder {
        sandbox: sandbox.clone(),
        path: "/work".into(),
        after: after.into(),
        limit,
    };
    let page = host.ask(list(b"", 2)).await.unwrap();
    let names: Vec<_> = page
        .entries
        .iter()
        .map(|entry| entry.name.as_str())
        .collect();
    assert_eq!(names, ["a", "big"]);
    assert!(page.next_cursor.is_some());
    let remove = |path: &str, recursive| RemoveFile {
        sandbox: sandbox.clone(),
        path: path.into(),
        recursive,
    };
    assert_eq!(
        host.ask(remove("/work/a", false)).await.unwrap_err().code,
        Code::Conflict
    );
    host.ask(remove("/work/a", true)).await.unwrap();
    let page = host.ask(list(b"big", 10)).await.unwrap();
    let names: Vec<_> = page
        .entries
        .iter()
        .map(|entry| entry.name.as_str())
        .collect();
    // The folder is made before the archive turns out to be none.
    assert_eq!((names, page.next_cursor), (vec!["y", "z"], None));
    host.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_sandbox_stands_still_until_it_is_needed() {
    let host = Host::start().await;
    let sandbox = host.make(json!({})).await;
    let script = "for ((i = 1; ; i++)); do echo $i; read -t 0.05 <> <(:); done";
    let counter = host
        .start_exec(&sandbox, json!({"lang": "bash", "code": script}))
        .await;
    host.until(&sandbox, counter, "3").await;
    let seen = host.tell(&sandbox, SandboxOrder::Pause).await.unwrap();
    assert_eq!(seen.state, SandboxState::Paused);
    // What was under way has arrived; then there is silence.
    let (mut after, mut text) = (0, String::new());
    loop {
        let (last, more, _) = host.follow(&sandbox, counter, after).await;
        if last == after {
            break;
        }
        after = last;
        text += &more;
    }
    let reached: u64 = text.lines().last().unwrap().parse().unwrap();
    // A file that is asked for wakes it, and it knows what time it is.
    let slept = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let now: u64 = host
        .output(&sandbox, "date +%s")
        .await
        .trim()
        .parse()
        .unwrap();
    assert!(now >= slept, "{now} is before {slept}");
    host.until(&sandbox, counter, &(reached + 3).to_string())
        .await;
    assert_eq!(
        host.reaches(&sandbox, SandboxState::Running).await.reason,
        None
    );
    host.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forks_and_roll_backs_carry_memory_and_files_of_one_instant() {
    let host = Host::start().await;
    let sandbox = host.make(json!({})).await;
    let script = "n=1; while read line; do echo $line > /work/said; n=$((n+1)); echo $n; done";
    let exec = json!({"lang": "bash", "code": script, "interactive": true});
    let program = host.start_exec(&sandbox, exec).await;
    let feed = |sandbox: &SandboxRef, line: &str| FeedExec {
        sandbox: sandbox.clone(),
        id: program,
        input: Input::Stdin(format!("{line}\n").into_bytes()),
    };
    host.ask(feed(&sandbox, "one")).await.unwrap();
    host.until(&sandbox, program, "2").await;
    let snapshot = SnapshotId::from_bits(host.name());
    let save = SaveSandbox {
        sandbox: sandbox.clone(),
        snapshot,
    };
    let kept = host.ask(save).await.unwrap();
    assert!(kept.size_bytes > 1 << 20, "{kept:?}");

    host.ask(feed(&sandbox, "two")).await.unwrap();
    host.until(&sandbox, program, "3").await;
    // Two forks; the third would be one sandbox more than this host has.
    let forks: Vec<_> = (0..4).map(|_| host.new_ref()).collect();
    let split = SplitSandbox {
        sandbox: sandbox.clone(),
        forks: forks.iter().map(|fork| fork.id).collect(),
    };
    let made = host.ask(split).await.unwrap();
    let failed = made.iter().filter(|made| made.is_err()).count();
    assert_eq!((made.len(), failed), (4, 1), "{made:?}");
    let ours = forks.iter().zip(&made).filter(|(_, made)| made.is_ok());
    for (number, (fork, _)) in ours.enumerate() {
        assert_eq!(host.output(fork, "cat /work/said").await, "two\n");
        // The same program goes on in each, by itself.
        host.ask(feed(fork, &format!("fork {number}")))
            .await
            .unwrap();
        host.until(fork, program, "4").await;
        assert_eq!(
            host.output(fork, "cat /work/said").await,
            format!("fork {number}\n")
        );
        host.tell(fork, SandboxOrder::Destroy).await.unwrap();
    }
    assert_eq!(host.output(&sandbox, "cat /work/said").await, "two\n");

    // Back to the first instant.
    let seen = host
        .tell(&sandbox, SandboxOrder::RollBack { snapshot })
        .await
        .unwrap();
    assert_eq!(seen.state, SandboxState::Running);
    assert_eq!(host.output(&sandbox, "cat /work/said").await, "one\n");
    host.ask(feed(&sandbox, "again")).await.unwrap();
    host.until(&sandbox, program, "3").await;

    // A new one from the snapshot, also after the host was started again.
    let have = host.ask(HaveSnapshots {}).await.unwrap();
    assert_eq!(have, [kept]);
    let Host {
        agent, lab, server, ..
    } = host;
    agent.shut_down(Instant::now()).await;
    drop(server);
    let host = Host::start_in(lab).await;
    let again = host.make(json!({"snapshot": snapshot})).await;
    assert_eq!(host.output(&again, "cat /work/said").await, "one\n");
    // One that was changed on the disk is refused, and the sandbox stays as it is.
    let state = host.lab.path().join(format!("keep/{snapshot}/state"));
    let mut bytes = std::fs::read(&state).unwrap();
    bytes[1000] ^= 1;
    std::fs::remove_file(&state).unwrap();
    std::fs::write(&state, bytes).unwrap();
    let problem = host
        .tell(&again, SandboxOrder::RollBack { snapshot })
        .await
        .unwrap_err();
    assert_eq!(problem.code, Code::Conflict);
    assert!(
        problem.cause.contains("is refused: state has changed"),
        "{problem:?}"
    );
    host.ask(DropSnapshot { id: snapshot }).await.unwrap();
    // Who began from it does not need it any more.
    assert_eq!(host.output(&again, "cat /work/said").await, "one\n");
    let problem = host
        .tell(&again, SandboxOrder::RollBack { snapshot })
        .await
        .unwrap_err();
    assert_eq!(problem.code, Code::NotFound);
    host.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sandboxes_end_by_themselves_for_reasons_that_are_told() {
    let host = Host::start().await;
    let idle = |then| Idle { after_s: 1, then };
    // Nobody uses it.
    let paused = host.make(json!({"idle": idle(IdleThen::Pause)})).await;
    let destroyed = host.make(json!({"idle": idle(IdleThen::Destroy)})).await;
    host.reaches(&paused, SandboxState::Paused).await;
    let seen = host.reaches(&destroyed, SandboxState::Destroyed).await;
    assert_eq!(seen.reason, Some(Reason::Idle));
    let problem = host
        .ask(StatFile {
            sandbox: destroyed,
            path: "/work".into(),
        })
        .await
        .unwrap_err();
    assert_eq!(problem.code, Code::NotFound);
    assert!(problem.cause.contains("nobody used it"), "{problem}");
    // Its time is over, paused or not.
    let order = SandboxOrder::Terms {
        ttl_s: Some(1),
        idle: None,
    };
    host.tell(&paused, order).await.unwrap();
    let seen = host.reaches(&paused, SandboxState::Destroyed).await;
    assert_eq!(seen.reason, Some(Reason::TtlOver));

    // Its VMM is killed.
    let killed = host.make(json!({})).await;
    let script = json!({"lang": "bash", "code": "echo up; read line", "interactive": true});
    let program = host.start_exec(&killed, script).await;
    host.until(&killed, program, "up").await;
    let name = killed.id.to_string();
    let microvms = host.lab.microvms();
    let own = microvms.iter().find(|vm| vm.path.ends_with(&name)).unwrap();
    own.vmm().unwrap().kill().unwrap();
    let seen = host.reaches(&killed, SandboxState::Destroyed).await;
    assert_eq!(seen.reason, Some(Reason::VmmDied));
    let (_, end) = host.end_of(&killed, program).await;
    assert!(matches!(end, End::Failed(_)), "{end:?}");

    // The service ends.
    let left = host.make(json!({})).await;
    let seen = async {
        let call = LookSandbox {
            sandbox: left.clone(),
            revision: 2,
            wait_ms: 25_000,
        };
        host.ask(call).await.unwrap()
    };
    let (seen, ()) = tokio::join!(seen, host.agent.shut_down(Instant::now()));
    assert_eq!(seen.reason, Some(Reason::HostRestarted), "{seen:?}");
    host.lab.assert_empty();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_destroyed_while_it_is_made_or_saved_leaves_nothing() {
    let host = Host::start().await;
    // Prepared once, so that what follows is short.
    let first = host.make(json!({})).await;
    let sandbox = host.new_ref();
    let mut request: NewSandbox = serde_json::from_value(json!({})).unwrap();
    request.template = "base".into();
    let making = MakeSandbox {
        sandbox: sandbox.clone(),
        request,
    };
    let destroy = async {
        // As soon as it is known.
        while host.tell(&sandbox, SandboxOrder::Destroy).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    let (made, ()) = tokio::join!(host.ask(making), destroy);
    let problem = made.unwrap_err();
    assert_eq!(problem.code, Code::NotFound, "{problem}");

    let save = SaveSandbox {
        sandbox: first.clone(),
        snapshot: SnapshotId::from_bits(host.name()),
    };
    let destroy = async {
        host.reaches(&first, SandboxState::Saving).await;
        host.tell(&first, SandboxOrder::Destroy).await.unwrap();
    };
    let (saved, ()) = tokio::join!(host.ask(save), destroy);
    assert_eq!(saved.unwrap_err().code, Code::NotFound);
    assert_eq!(host.ask(HaveSnapshots {}).await.unwrap(), []);
    let left = std::fs::read_dir(host.lab.path().join("keep")).unwrap();
    assert_eq!(left.count(), 0);
    host.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_stops_or_kills_its_zygote_is_not_the_last() {
    let host = Host::start().await;
    let run = async |sandbox: &SandboxRef, code: &str| {
        let exec = json!({"lang": "python", "code": code, "timeout_ms": 60_000});
        let id = host.start_exec(sandbox, exec).await;
        let (said, end) = host.end_of(sandbox, id).await;
        (said, done(&end).exit_code)
    };
    let parent = "import os\nprint(os.getppid() == 1)";
    for signal in ["STOP", "KILL"] {
        let sandbox = host.make(json!({})).await;
        // The first is the one that waited; the second has the zygote for a parent.
        assert_eq!(run(&sandbox, parent).await, ("True\n".into(), 0));
        assert_eq!(run(&sandbox, parent).await, ("False\n".into(), 0));
        let code = format!(
            "import os, signal\nos.kill(os.getppid(), signal.SIG{signal})\n\
             print('done', flush=True)\nos._exit(3)"
        );
        assert_eq!(run(&sandbox, &code).await, ("done\n".into(), 3), "{signal}");
        // Without a zygote the interpreter is started as usual.
        assert_eq!(
            run(&sandbox, parent).await,
            ("True\n".into(), 0),
            "{signal}"
        );
    }
    host.end().await;
}
