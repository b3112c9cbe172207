//! The guest's ports, through the microVM's Unix socket, against the real guest-runner.

#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use firelane_guest_proto::SESSION_PORT;
use firelane_guest_proto::frame::MAX_STREAMS;
use firelane_guest_proto::link::MAX_CONNECTIONS;
use firelane_guest_proto::message::{
    ExecSpec, Exit, GetSpec, Limits, Outcome, Program, PtySize, PutSpec, RefusedCode,
};
use firelane_testkit::{Lab, Running};
use firelane_vmm::connect::{ConnectError, connect};
use firelane_vmm::session::{Event, Exec, Session, SessionError};
use tokio::time::Instant;

/// A microVM that lives as long as this.
struct Guest {
    lab: Lab,
    running: Running,
    vsock: PathBuf,
}

impl Guest {
    fn boot() -> Guest {
        let lab = Lab::new();
        let command = lab.command(&[
            "run",
            "--template",
            "base",
            "--timeout",
            "10m",
            "--lang",
            "bash",
            "-c",
            "echo up; read -r x",
        ]);
        let mut running = Running::start(command, b"");
        assert_eq!(running.line(), "up\n");
        let vsock = lab.microvms()[0].path.join("v.sock");
        Guest {
            lab,
            running,
            vsock,
        }
    }

    async fn session(&self) -> Session {
        let deadline = Instant::now() + Duration::from_secs(30);
        Session::open(connect(&self.vsock, SESSION_PORT, deadline).await.unwrap())
            .await
            .unwrap()
    }

    fn end(self) {
        assert_eq!(self.running.end().code, 1);
        self.lab.assert_empty();
    }
}

fn spec(argv: &[&str]) -> ExecSpec {
    ExecSpec {
        trace_id: "test".into(),
        program: Program::Command {
            argv: argv.iter().map(|arg| (*arg).into()).collect(),
        },
        env: Vec::new(),
        cwd: None,
        limits: Limits {
            timeout_ms: 120_000,
            ..Limits::default()
        },
        pty: None,
    }
}

fn get(path: &str, max_bytes: u64) -> GetSpec {
    GetSpec {
        path: path.into(),
        max_bytes,
    }
}

/// Why the guest refused.
fn code(result: Result<(), SessionError>) -> RefusedCode {
    match result {
        Err(SessionError::Refused(refused)) => refused.code,
        other => panic!("not refused: {other:?}"),
    }
}

async fn finish(mut exec: Exec) -> (Vec<u8>, Outcome) {
    let mut stdout = Vec::new();
    loop {
        match exec.next().await.unwrap() {
            Event::Stdout(bytes) => stdout.extend(bytes),
            Event::Ended(outcome) => return (stdout, outcome),
            Event::Started | Event::Stderr(_) => {}
        }
    }
}

async fn shell(session: &Session, script: &str) -> (String, Outcome) {
    let exec = session.exec(&spec(&["bash", "-c", script])).await.unwrap();
    exec.stdin().end().await.unwrap();
    let (stdout, outcome) = finish(exec).await;
    (String::from_utf8(stdout).unwrap(), outcome)
}

#[test]
fn the_original_protocol_speaks_to_a_client_of_another_language() {
    let guest = Guest::boot();
    let client = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/original.py");
    let output = Command::new("python3")
        .arg(client)
        .arg(&guest.vsock)
        .output()
        .unwrap();
    let expected = "\
['exit_code', 'stderr', 'stdout', 'trace_id'] one 'hé\\n' 'err\\n' 3
two 'again\\n' 0
124
125 unknown language 'cobol' (known: python, bash, node, ruby, rust)
127
125 True
125 True
125 True
125 True
None
b
a
b''
";
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        expected,
        "{output:?}"
    );
    guest.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_carries_many_execs_signals_and_terminals() {
    let guest = Guest::boot();
    let session = guest.session().await;
    assert!(
        session.welcome().kernel.starts_with("6."),
        "{:?}",
        session.welcome()
    );

    // Many at once, each with its own input and output.
    let mut execs = Vec::new();
    for number in 0..8 {
        let exec = session.exec(&spec(&["cat"])).await.unwrap();
        exec.stdin()
            .write(format!("input {number}").as_bytes())
            .await
            .unwrap();
        execs.push(exec);
    }
    for exec in &execs {
        exec.stdin().end().await.unwrap();
    }
    for (number, exec) in execs.into_iter().enumerate() {
        let (stdout, outcome) = finish(exec).await;
        assert_eq!(
            String::from_utf8(stdout).unwrap(),
            format!("input {number}")
        );
        assert_eq!(outcome.exit, Exit::Code(0));
    }

    // A signal reaches the program, not its neighbours.
    let mut trapped = session
        .exec(&spec(&[
            "bash",
            "-c",
            "trap 'exit 9' USR1; echo ready; while :; do sleep 0.1; done",
        ]))
        .await
        .unwrap();
    let mut bystander = session
        .exec(&spec(&["bash", "-c", "echo ready; read -r x; exit 4"]))
        .await
        .unwrap();
    for exec in [&mut trapped, &mut bystander] {
        while exec.next().await.unwrap() != Event::Stdout(b"ready\n".to_vec()) {}
    }
    trapped.stdin().signal(10).await.unwrap();
    assert_eq!(finish(trapped).await.1.exit, Exit::Code(9));
    bystander.stdin().end().await.unwrap();
    assert_eq!(finish(bystander).await.1.exit, Exit::Code(4));

    // A terminal has a size, and changes it.
    let pty = Some(PtySize { rows: 24, cols: 80 });
    let script =
        "stty size; trap 'stty size; exit 0' WINCH; echo ready; while :; do sleep 0.1; done";
    let mut exec = session
        .exec(&ExecSpec {
            pty,
            ..spec(&["bash", "-c", script])
        })
        .await
        .unwrap();
    let mut seen = String::new();
    while !seen.contains("ready") {
        if let Event::Stdout(bytes) = exec.next().await.unwrap() {
            seen.push_str(&String::from_utf8_lossy(&bytes));
        }
    }
    exec.stdin()
        .resize(PtySize {
            rows: 50,
            cols: 132,
        })
        .await
        .unwrap();
    let (rest, outcome) = finish(exec).await;
    seen.push_str(&String::from_utf8_lossy(&rest));
    assert_eq!(seen, "24 80\r\nready\r\n50 132\r\n");
    assert_eq!(outcome.exit, Exit::Code(0));

    // What cannot be started is refused, and the session goes on.
    let mut missing = session.exec(&spec(&["no-such-program"])).await.unwrap();
    let error = missing.next().await.unwrap_err();
    assert!(
        matches!(&error, SessionError::Refused(refused) if refused.code == RefusedCode::NoInterpreter),
        "{error}"
    );
    assert_eq!(shell(&session, "echo on").await.0, "on\n");
    drop(session);
    guest.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn back_pressure_holds_a_program_until_its_output_is_taken() {
    let guest = Guest::boot();
    let session = guest.session().await;
    // Far more than all windows and pipes between the two hold.
    let script = "head -c 4M /dev/zero; echo x > /tmp/written";
    let mut slow = session.exec(&spec(&["bash", "-c", script])).await.unwrap();
    assert_eq!(slow.next().await.unwrap(), Event::Started);
    // Another exec of the same session is not held up, and sees that the first one is.
    let (held, _) = shell(
        &session,
        "sleep 2; ls /tmp/written 2>&1 | grep -c 'No such'",
    )
    .await;
    assert_eq!(held, "1\n");
    let (stdout, outcome) = finish(slow).await;
    assert_eq!((stdout.len(), outcome.exit), (4 << 20, Exit::Code(0)));
    assert_eq!(shell(&session, "cat /tmp/written").await.0, "x\n");
    drop(session);
    guest.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn execs_end_with_their_session() {
    let guest = Guest::boot();
    let first = guest.session().await;
    let mut exec = first.exec(&spec(&["sleep", "4242"])).await.unwrap();
    assert_eq!(exec.next().await.unwrap(), Event::Started);
    let second = guest.session().await;
    let count = "pgrep -xc sleep";
    assert_eq!(shell(&second, count).await.0, "1\n");
    drop(exec);
    drop(first);
    let (gone, _) = shell(
        &second,
        "while pgrep -x sleep >/dev/null; do :; done; echo gone",
    )
    .await;
    assert_eq!(gone, "gone\n");
    drop(second);
    guest.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_atomic_capped_and_confined() {
    let guest = Guest::boot();
    let session = guest.session().await;
    let put = |path: &str, size: u64| PutSpec {
        path: path.into(),
        mode: 0o6755,
        size,
    };
    let content = vec![7u8; 1_500_000];
    session
        .put(
            &put("deep/er/file", content.len() as u64),
            content.as_slice(),
        )
        .await
        .unwrap();
    let (stat, _) = shell(&session, "stat -c '%s %a %U' /work/deep/er/file").await;
    assert_eq!(stat, "1500000 755 user\n", "set-id bits are not set");
    let mut got = Vec::new();
    let info = session
        .get(&get("/work/deep/er/file", u64::MAX), &mut got)
        .await
        .unwrap();
    assert_eq!((info.size, got == content), (1_500_000, true));

    // What ends early leaves the old content.
    let short = session.put(&put("deep/er/file", 10), &b"123"[..]).await;
    assert!(
        matches!(short, Err(SessionError::HostFile { .. })),
        "{short:?}"
    );
    let (size, _) = shell(
        &session,
        "stat -c %s /work/deep/er/file; ls -A /work/deep/er",
    )
    .await;
    assert_eq!(size, "1500000\nfile\n");
    let fetch = |path: &'static str, max| {
        let session = &session;
        async move {
            session
                .get(&get(path, max), &mut Vec::new())
                .await
                .map(drop)
        }
    };
    assert_eq!(
        code(fetch("/work/deep/er/file", 100).await),
        RefusedCode::Exhausted
    );
    assert_eq!(code(fetch("/work/none", 100).await), RefusedCode::NotFound);
    assert_eq!(code(fetch("/etc/passwd", 100).await), RefusedCode::Confined);
    assert_eq!(
        code(
            session
                .put(&put("/tmp/x", 1 << 40), tokio::io::repeat(0))
                .await
        ),
        RefusedCode::Exhausted
    );
    // Links and pipes that a program plants lead nowhere.
    shell(
        &session,
        "cd /work; ln -s /etc out; ln -s /etc/shadow leak; mkfifo pipe; ln -s /tmp/t dangling",
    )
    .await;
    assert_eq!(code(fetch("leak", 100_000).await), RefusedCode::Confined);
    assert_eq!(
        code(fetch("out/passwd", 100_000).await),
        RefusedCode::Confined
    );
    assert_eq!(code(fetch("pipe", 100).await), RefusedCode::Invalid);
    assert_eq!(
        code(session.put(&put("out/passwd", 1), &b"x"[..]).await),
        RefusedCode::Confined
    );
    drop(session);
    guest.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_the_session_port_ends_that_session_only() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let guest = Guest::boot();
    let session = guest.session().await;
    let deadline = Instant::now() + Duration::from_secs(30);
    let attacks: [&[u8]; 4] = [
        b"GET / HTTP/1.1\r\n\r\n",
        // The header of a data frame of 4 GiB.
        &[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, 0x13, 1, 0, 0],
        // An exec before any hello.
        &[0, 0, 0, 0, 0, 0, 0, 1, 0x10, 0, 0, 0],
        // A hello of no known version.
        &[
            0, 0, 0, 6, 0, 0, 0, 0, 1, 0, 0, 0, b'F', b'L', b'N', 1, 9, 9,
        ],
    ];
    for attack in attacks {
        let mut stream = connect(&guest.vsock, SESSION_PORT, deadline).await.unwrap();
        stream.write_all(attack).await.unwrap();
        let mut goodbye = Vec::new();
        stream.read_to_end(&mut goodbye).await.unwrap();
        assert_eq!(goodbye.get(8), Some(&5), "it says goodbye: {goodbye:?}");
    }
    assert_eq!(shell(&session, "echo unmoved").await.0, "unmoved\n");
    drop(session);
    guest.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_full_refuses_one_more_stream_and_goes_on() {
    let guest = Guest::boot();
    let session = guest.session().await;
    let mut execs = Vec::new();
    for _ in 0..MAX_STREAMS {
        let mut exec = session.exec(&spec(&["cat"])).await.unwrap();
        assert_eq!(exec.next().await.unwrap(), Event::Started);
        execs.push(exec);
    }
    let mut extra = session.exec(&spec(&["cat"])).await.unwrap();
    assert_eq!(code(extra.next().await.map(drop)), RefusedCode::Exhausted);
    let first = execs.pop().unwrap();
    first.stdin().end().await.unwrap();
    assert_eq!(finish(first).await.1.exit, Exit::Code(0));
    assert_eq!(shell(&session, "echo room").await.0, "room\n");
    drop((execs, session));
    guest.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_is_full_refuses_one_more_connection_and_goes_on() {
    let guest = Guest::boot();
    let mut connections = Vec::new();
    let refused = loop {
        let deadline = Instant::now() + Duration::from_secs(10);
        match connect(&guest.vsock, SESSION_PORT, deadline).await {
            Ok(stream) => connections.push(stream),
            Err(error) => break error,
        }
        assert!(
            connections.len() <= MAX_CONNECTIONS,
            "no end of connections"
        );
    };
    // The run has one of them.
    assert_eq!(connections.len(), MAX_CONNECTIONS - 1);
    assert!(
        matches!(refused, ConnectError::Refused { .. }),
        "{refused:?}"
    );
    drop(connections);
    let session = guest.session().await;
    assert_eq!(shell(&session, "echo room").await.0, "room\n");
    drop(session);
    guest.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_get_that_is_left_frees_its_stream() {
    let guest = Guest::boot();
    let session = guest.session().await;
    shell(&session, "truncate -s 64M /work/big").await;
    for _ in 0..MAX_STREAMS {
        let spec = get("/work/big", 1 << 30);
        // Dropped at its first bytes.
        let (ours, mut theirs) = tokio::io::duplex(1);
        tokio::select! {
            got = session.get(&spec, ours) => panic!("{got:?}"),
            byte = tokio::io::AsyncReadExt::read_u8(&mut theirs) => assert_eq!(byte.unwrap(), 0),
        }
    }
    // The guest learns of it when it has sent what was under way.
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let mut exec = session.exec(&spec(&["true"])).await.unwrap();
        match exec.next().await {
            Ok(event) => break assert_eq!(event, Event::Started),
            refused => assert_eq!(code(refused.map(drop)), RefusedCode::Exhausted),
        }
        assert!(Instant::now() < deadline, "no stream is freed");
    }
    drop(session);
    guest.end();
}

#[test]
fn the_socket_is_closed_to_other_users() {
    let guest = Guest::boot();
    let mode = std::fs::metadata(&guest.vsock)
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o077, 0, "{mode:o}");
    guest.end();
}
