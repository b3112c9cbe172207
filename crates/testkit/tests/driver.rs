//! QEMU with Linux, beyond the conformance suite: the guest's clock while it is paused, and a warmed guest.

#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use firelane_guest_proto::message::{
    ExecSpec, GetSpec, Limits, Program, PutSpec, RefusedCode, RenewSpec, SEED_BYTES, WarmSpec,
};
use firelane_guest_proto::{Lang, ORIGINAL_PORT, SESSION_PORT};
use firelane_launch::machine::{Acceleration, DiskLimits, Files, Shape};
use firelane_launch::qemu::{Origin, arguments, default_program};
use firelane_testkit::Lab;
use firelane_testkit::booted::{machine, qemu};
use firelane_vmm::connect::connect;
use firelane_vmm::driver::{BootError, Driver, Machine, MicroVm};
use firelane_vmm::session::{Event, Session, SessionError};
use firelane_vmm::timeline::{Phase, Timeline};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};

async fn boot(lab: &Lab) -> Box<dyn MicroVm> {
    let machine = Machine {
        id: lab.name("driver-test"),
        ..machine(lab, "base", 256)
    };
    let mut timeline = Timeline::start();
    let vm = qemu(lab).boot(&machine, &mut timeline).await.unwrap();
    let phases: Vec<Phase> = timeline.marks().iter().map(|(phase, _)| *phase).collect();
    let expected = [
        Phase::Spawned,
        Phase::Configured,
        Phase::Started,
        Phase::GuestReady,
    ];
    assert_eq!(phases, expected);
    vm
}

/// One that is given up while it boots: the error says where its processor is, since the console does not.
#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_is_not_ready_in_time_is_told_with_where_it_stands() {
    let lab = Lab::new();
    let machine = Machine {
        id: lab.name("driver-late"),
        boot_timeout: Duration::from_secs(1),
        ..machine(&lab, "base", 256)
    };
    // On a busy host its VMM may not be ready in that time either, and then there is nothing to say yet.
    for _ in 0..20 {
        let booted = qemu(&lab).boot(&machine, &mut Timeline::start()).await;
        let Err(BootError::NotReady { stands, .. }) = booted else {
            panic!("{:?}", booted.map(|_| "it was ready"));
        };
        if !stands.is_empty() {
            assert!(
                stands.starts_with("machine: running\nprocessor 0: at 0x"),
                "{stands}"
            );
            lab.assert_empty();
            return;
        }
    }
    panic!("its VMM was never ready in time");
}

/// Seconds that the guest's own clock has run.
async fn uptime(session: &Session) -> f64 {
    let text = output(session, "cut -d ' ' -f1 /proc/uptime").await;
    text.trim().parse().unwrap()
}

async fn open(vm: &dyn MicroVm) -> Session {
    let deadline = Instant::now() + Duration::from_secs(30);
    let stream = connect(vm.vsock_path(), SESSION_PORT, deadline)
        .await
        .unwrap();
    Session::open(stream).await.unwrap()
}

fn command(script: &str) -> ExecSpec {
    let argv = ["bash", "-c", script].map(String::from).to_vec();
    ExecSpec {
        trace_id: "test".into(),
        program: Program::Command { argv },
        env: Vec::new(),
        cwd: None,
        limits: Limits::default(),
        pty: None,
    }
}

/// What a shell command prints.
async fn output(session: &Session, script: &str) -> String {
    let mut exec = session.exec(&command(script)).await.unwrap();
    let mut text = Vec::new();
    loop {
        match exec.next().await.unwrap() {
            Event::Stdout(bytes) => text.extend(bytes),
            Event::Ended(_) => return String::from_utf8(text).unwrap(),
            Event::Started | Event::Stderr(_) => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_microvm_stands_still_and_goes_on_where_it_was() {
    const PAUSE: Duration = Duration::from_secs(5);
    let lab = Lab::new();
    let mut vm = boot(&lab).await;
    let session = open(&*vm).await;
    let before = uptime(&session).await;

    vm.pause().await.unwrap();
    vm.pause().await.unwrap();
    let paused = Instant::now();
    // The time is the condition: the guest's clock must not see it pass.
    let silent = timeout(PAUSE, uptime(&session)).await;
    assert!(silent.is_err(), "a paused guest answered");
    sleep(PAUSE.saturating_sub(paused.elapsed())).await;
    let real = paused.elapsed().as_secs_f64();
    vm.resume().await.unwrap();
    vm.resume().await.unwrap();

    let resumed = Instant::now();
    let after = uptime(&session).await;
    let ran = resumed.elapsed().as_secs_f64();
    // What the guest's clock ran, over what it took to ask: a guest that had gone on would show
    // the whole pause on top.
    let seen = after - before;
    assert!(
        seen < real + ran - 2.0,
        "its clock ran {seen} s in {real} s of pause and {ran} s"
    );
    vm.destroy().await.unwrap();
    lab.assert_empty();
}

fn spec() -> RenewSpec {
    RenewSpec {
        seed: vec![7; SEED_BYTES],
        realtime_ns: 1_800_000_000_000_000_000,
        hostname: "renewed".into(),
        machine_id: [7; 16],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warmed_guest_does_nothing_until_it_is_renewed() {
    let lab = Lab::new();
    let vm = boot(&lab).await;
    let session = open(&*vm).await;
    let warm = WarmSpec {
        snippets: vec![(Lang::Bash, "true".into())],
        env: Vec::new(),
    };
    session.warm(&warm).await.unwrap();
    let stale = |result: Result<(), SessionError>| match result {
        Err(SessionError::Refused(refused)) => assert_eq!(refused.code, RefusedCode::Stale),
        other => panic!("not refused: {other:?}"),
    };
    stale(session.warm(&warm).await);
    let file = PutSpec {
        path: "/work/file".into(),
        mode: 0o644,
        size: 1,
    };
    stale(session.put(&file, &b"x"[..]).await);
    let get = GetSpec {
        path: "/etc/hostname".into(),
        max_bytes: 100,
    };
    stale(session.get(&get, &mut Vec::new()).await.map(drop));
    stale(session.stat("/tmp").await.map(drop));
    let mut exec = session.exec(&command("true")).await.unwrap();
    stale(exec.next().await.map(drop));
    assert!(original(&*vm).await.contains("has not been renewed"));

    // A renewal that cannot be leaves it as stale as it was.
    for bad in [
        RenewSpec {
            seed: vec![7; 8],
            ..spec()
        },
        RenewSpec {
            hostname: "two words".into(),
            ..spec()
        },
    ] {
        match session.renew(&bad).await {
            Err(SessionError::Refused(refused)) => assert_eq!(refused.code, RefusedCode::Invalid),
            other => panic!("not refused: {other:?}"),
        }
    }
    stale(session.warm(&warm).await);

    session.renew(&spec()).await.unwrap();
    let told = output(&session, "hostname; date +%Y; cat /etc/machine-id").await;
    assert_eq!(told, format!("renewed\n2027\n{}\n", "07".repeat(16)));
    drop(session);
    vm.destroy().await.unwrap();
}

/// The answer of port 5000 to a small program.
async fn original(vm: &dyn MicroVm) -> String {
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut stream = connect(vm.vsock_path(), ORIGINAL_PORT, deadline)
        .await
        .unwrap();
    let request = br#"{"trace_id":"t","lang":"bash","code":"true","timeout":5}"#;
    let length = u32::try_from(request.len()).unwrap();
    stream.write_all(&length.to_be_bytes()).await.unwrap();
    stream.write_all(request).await.unwrap();
    let length = stream.read_u32().await.unwrap();
    let mut response = vec![0; length as usize];
    stream.read_exact(&mut response).await.unwrap();
    String::from_utf8(response).unwrap()
}

/// What QEMU itself says that it bounds the disk by, for the `-drive` of a microVM's command line.
#[test]
fn qemu_bounds_what_is_read_of_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk,with a comma");
    fs::write(&disk, [7; 4096]).unwrap();
    let shape = Shape {
        id: "bounded".into(),
        memory_mib: 128,
        vcpus: 1,
    };
    let files = Files {
        kernel: "/none".into(),
        initrd: None,
        rootfs: Some(disk),
        disk: DiskLimits {
            bytes_per_s: 3 << 20,
            ops_per_s: 70,
        },
    };
    let line = arguments(&shape, &files, Origin::Boot, Acceleration::Tcg, 1, None);
    let at = line.iter().position(|word| word == "-drive").unwrap();
    let mut child = Command::new(default_program())
        .args(["-M", "none", "-nodefaults", "-display", "none"])
        .args(["-qmp", "stdio", "-drive", &line[at + 1]])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut monitor = child.stdin.take().unwrap();
    for command in ["qmp_capabilities", "query-block", "quit"] {
        writeln!(monitor, "{{\"execute\": \"{command}\"}}").unwrap();
    }
    let said = child.wait_with_output().unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    let blocks = said.lines().find(|line| line.contains("inserted")).unwrap();
    let blocks: serde_json::Value = serde_json::from_str(blocks).unwrap();
    let inserted = &blocks["return"][0]["inserted"];
    for (bound, value) in [
        ("bps", 3 << 20),
        ("bps_max", 3 << 20),
        ("bps_max_length", 1),
        ("iops", 70),
        ("iops_max", 70),
        ("iops_max_length", 1),
    ] {
        assert_eq!(inserted[bound], value, "{bound}: {inserted}");
    }
    assert_eq!(inserted["ro"], true);
}
