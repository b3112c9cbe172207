//! Snapshots of microVMs that go on: saved while programs run, restored as forks, again and again.

#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use firelane_guest_proto::SESSION_PORT;
use firelane_guest_proto::frame::{Decoder, Frame, Kind};
use firelane_guest_proto::message::{
    AttachSpec, DetachedState, ExecSpec, Goodbye, Hello, Limits, Outcome, Program, RefusedCode,
    RenewSpec, SEED_BYTES, ThawSpec, Welcome, from_frame, to_frame,
};
use firelane_testkit::{Lab, SmallDisk, booted};
use firelane_vmm::connect::connect;
use firelane_vmm::driver::{Driver, Machine, MicroVm, SaveError, SnapshotFiles};
use firelane_vmm::qemu::Qemu;
use firelane_vmm::session::{Event, Exec, Session, SessionError};
use firelane_vmm::timeline::Timeline;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

/// A microVM of the template `base`. Its name is this test's own: tests run side by side.
fn machine(lab: &Lab, id: &str) -> Machine {
    Machine {
        id: lab.name(id),
        ..booted::machine(lab, "base", 256)
    }
}

fn files(lab: &Lab, name: &str) -> SnapshotFiles {
    SnapshotFiles::new(
        lab.path().join(format!("{name}.memory")),
        lab.path().join(format!("{name}.state")),
    )
}

async fn boot(lab: &Lab, driver: &Qemu, id: &str) -> Box<dyn MicroVm> {
    let mut timeline = Timeline::start();
    let machine = machine(lab, id);
    driver.boot(&machine, &mut timeline).await.unwrap()
}

async fn restore(lab: &Lab, driver: &Qemu, files: &SnapshotFiles, id: &str) -> Box<dyn MicroVm> {
    let mut timeline = Timeline::start();
    let machine = machine(lab, id);
    let restored = driver.restore(&machine, files, &mut timeline).await;
    restored.unwrap()
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

/// The next bytes of a program's stdout.
async fn bytes(exec: &mut Exec) -> Vec<u8> {
    loop {
        match exec.next().await.unwrap() {
            Event::Stdout(bytes) => return bytes,
            Event::Started => {}
            other => panic!("{other:?}"),
        }
    }
}

/// More than passes while a microVM is saved, and before.
const FLOOD_BYTES: usize = 16 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_saved_microvm_goes_on_and_so_do_its_clones_and_theirs() {
    let lab = Lab::new();
    let driver = booted::qemu(&lab);
    let mut source = boot(&lab, &driver, "source").await;
    let session = open(&*source).await;
    output(&session, "echo first > /tmp/who").await;
    // It floods its output, so that a frame is cut wherever the microVM is paused.
    let mut flood = session.exec(&command("seq 1 100000000")).await.unwrap();
    let mut seen = bytes(&mut flood).await;
    // Its input is flooded as well, so that it would be cut off in the middle of a frame to it.
    let mut reader = session.exec(&command("cat > /dev/null")).await.unwrap();
    let stdin = reader.stdin();
    let feeding = tokio::spawn(async move { while stdin.write(&[7; 60_000]).await.is_ok() {} });

    let first = files(&lab, "first");
    let reading = async {
        while seen.len() < FLOOD_BYTES {
            seen.extend(bytes(&mut flood).await);
        }
    };
    let (saved, ()) = tokio::join!(source.save(&first), reading);
    saved.unwrap();
    for path in [&first.memory, &first.state] {
        // It holds what a user did.
        let mode = fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o400);
    }
    // The source's program was not lost, nor a byte of what it says.
    let lines = String::from_utf8(seen).unwrap();
    let (whole, _) = lines.rsplit_once('\n').unwrap();
    for (line, expected) in whole.lines().zip(1u64..) {
        assert_eq!(line, expected.to_string());
    }
    flood.stdin().signal(9).await.unwrap();
    drop(flood);
    feeding.abort();
    reader.stdin().signal(9).await.unwrap();
    to_end(&mut reader, Vec::new()).await;

    let mut clone = restore(&lab, &driver, &first, "clone").await;
    let in_clone = open(&*clone).await;
    let told = output(&in_clone, "cat /tmp/who; echo second > /tmp/who").await;
    assert_eq!(told, "first\n");
    let second = files(&lab, "second");
    clone.save(&second).await.unwrap();
    output(&in_clone, "echo third > /tmp/who").await;

    let again = restore(&lab, &driver, &second, "again").await;
    let in_again = open(&*again).await;
    assert_eq!(output(&in_again, "cat /tmp/who").await, "second\n");
    assert_eq!(output(&in_clone, "cat /tmp/who").await, "third\n");
    assert_eq!(output(&session, "cat /tmp/who").await, "first\n");
    for vm in [source, clone, again] {
        vm.destroy().await.unwrap();
    }
    lab.assert_empty();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_microvm_is_saved_and_stays_paused() {
    let lab = Lab::new();
    let driver = booted::qemu(&lab);
    let mut source = boot(&lab, &driver, "source").await;
    let session = open(&*source).await;
    output(&session, "echo paused > /tmp/who").await;
    source.pause().await.unwrap();
    let saved = files(&lab, "saved");
    source.save(&saved).await.unwrap();
    let asked = tokio::time::timeout(Duration::from_secs(2), output(&session, "true")).await;
    assert!(asked.is_err(), "a paused guest answered");
    source.resume().await.unwrap();
    assert_eq!(output(&session, "cat /tmp/who").await, "paused\n");
    let clone = restore(&lab, &driver, &saved, "clone").await;
    let in_clone = open(&*clone).await;
    assert_eq!(output(&in_clone, "cat /tmp/who").await, "paused\n");
    for vm in [source, clone] {
        vm.destroy().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_told_and_the_microvm_goes_on() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can mount a small file system");
        return;
    }
    let lab = Lab::new();
    let driver = booted::qemu(&lab);
    let mut source = boot(&lab, &driver, "source").await;
    let session = open(&*source).await;
    let disk = SmallDisk::mount(&lab.path().join("small"), "8m");
    let files = SnapshotFiles::new(disk.path().join("memory"), disk.path().join("state"));
    let error = source.save(&files).await.unwrap_err();
    assert!(matches!(error, SaveError::NoSpace { .. }), "{error:?}");
    assert_eq!(fs::read_dir(disk.path()).unwrap().count(), 0);
    assert_eq!(output(&session, "echo on").await, "on\n");
    // And it can be saved where there is space.
    source.save(&self::files(&lab, "saved")).await.unwrap();
    source.destroy().await.unwrap();
    drop(disk);
    lab.assert_empty();
}

/// How long programs may take to stand still; emulation is slow.
const FREEZE: Duration = Duration::from_secs(20);

fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(since.as_nanos()).unwrap()
}

fn thaw() -> ThawSpec {
    ThawSpec {
        seed: vec![1; SEED_BYTES],
        realtime_ns: now_ns(),
    }
}

/// The identity of clone `number`.
fn renewal(number: u8) -> RenewSpec {
    RenewSpec {
        seed: vec![100 + number; SEED_BYTES],
        realtime_ns: now_ns(),
        hostname: format!("clone-{number}"),
        machine_id: [number; 16],
    }
}

fn named(id: &str) -> AttachSpec {
    AttachSpec {
        id: id.into(),
        ..AttachSpec::default()
    }
}

/// Reads an exec to its end, after what was read of it before.
async fn to_end(exec: &mut Exec, mut read: Vec<u8>) -> (Vec<u8>, Outcome) {
    loop {
        match exec.next().await.unwrap() {
            Event::Stdout(bytes) => read.extend(bytes),
            Event::Ended(outcome) => return (read, outcome),
            Event::Started | Event::Stderr(_) => {}
        }
    }
}

/// Reads whole lines of the counter until there are `count`: its number, and the guest's clock in
/// seconds since its boot.
async fn counted(exec: &mut Exec, count: usize) -> Vec<(u64, f64)> {
    let mut read = Vec::new();
    while read.iter().filter(|byte| **byte == b'\n').count() < count {
        read.extend(bytes(exec).await);
    }
    let text = String::from_utf8(read).unwrap();
    let (whole, _) = text.rsplit_once('\n').unwrap();
    let line = |line: &str| {
        let (number, clock) = line.split_once(' ').unwrap();
        (number.parse().unwrap(), clock.parse().unwrap())
    };
    whole.lines().map(line).collect()
}

fn refused(error: &SessionError) -> RefusedCode {
    match error {
        SessionError::Refused(refused) => refused.code,
        other => panic!("{other:?}"),
    }
}

/// Freezes, saves and thaws.
async fn save_frozen(vm: &mut dyn MicroVm, session: &Session, files: &SnapshotFiles) {
    session.freeze(FREEZE).await.unwrap();
    vm.save(files).await.unwrap();
    session.thaw(&thaw()).await.unwrap();
}

/// A program that counts, in its memory, in a file and on its stdout, for ever.
const COUNTER: &str = "for ((i = 1; ; i++)); do read clock _ < /proc/uptime; echo $i > /work/count; \
                       echo $i $clock; read -t 0.05 <> <(:); done";

#[tokio::test(flavor = "multi_thread")]
async fn forks_go_on_from_one_instant_each_by_itself() {
    const FORKS: u8 = 3;
    let lab = Lab::new();
    let driver = booted::qemu(&lab);
    let mut source = boot(&lab, &driver, "source").await;
    let session = open(&*source).await;
    session.launch("counter", &command(COUNTER)).await.unwrap();
    let (mut counter, _) = session.attach(&named("counter")).await.unwrap();
    let before = counted(&mut counter, 5).await;
    assert_eq!(before[0].0, 1);
    let saved = files(&lab, "saved");
    save_frozen(&mut *source, &session, &saved).await;
    // It keeps its name, its session and its program.
    assert_eq!(output(&session, "hostname").await, "firelane\n");
    let after = counted(&mut counter, 5).await;
    assert_eq!(after[0].0, before.last().unwrap().0 + 1);

    let mut starts = BTreeSet::new();
    let mut drawn = BTreeSet::new();
    let mut clones = Vec::new();
    let mut restored = None;
    for number in 0..FORKS {
        let vm = restore(&lab, &driver, &saved, &format!("fork-{number}")).await;
        let session = open(&*vm).await;
        // Nothing runs before it has an identity of its own, nor is anything told.
        let error = session.list().await.unwrap_err();
        assert_eq!(refused(&error), RefusedCode::Stale);
        let mut exec = session.exec(&command("true")).await.unwrap();
        let error = exec.next().await.unwrap_err();
        assert_eq!(refused(&error), RefusedCode::Stale);
        clones.push((vm, session));
        restored.get_or_insert_with(Instant::now);
    }
    // The first has run since then, but nothing in it.
    let stood = restored.unwrap().elapsed().as_secs_f64();
    for (number, (_, session)) in (0..FORKS).zip(&clones) {
        session.renew(&renewal(number)).await.unwrap();
    }
    for (number, (_, session)) in clones.iter().enumerate() {
        let listed = session.list().await.unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].state, DetachedState::Running);
        let (mut counter, attached) = session.attach(&named("counter")).await.unwrap();
        // The last line that the source's reader took comes right before.
        let mut lines = vec![*before.last().unwrap()];
        lines.extend(counted(&mut counter, 10).await);
        let mut longest: f64 = 0.0;
        for pair in lines.windows(2) {
            assert_eq!(pair[1].0, pair[0].0 + 1);
            longest = longest.max(pair[1].1 - pair[0].1);
        }
        // Two readings of its clock, each rounded to hundredths.
        assert!(
            number > 0 || longest > stood - 0.02,
            "it ran before it was renewed: {stood} s, {lines:?}"
        );
        starts.insert((attached.pid, attached.stdout_at, lines[1].0));
        let script = "head -c 16 /dev/urandom | od -An -tx1; hostname; cat /etc/machine-id";
        drawn.extend(output(session, script).await.lines().map(String::from));
        // Each goes its own way.
        output(session, &format!("echo {number} > /work/own")).await;
    }
    assert_eq!(starts.len(), 1, "not of one instant: {starts:?}");
    assert_eq!(drawn.len(), 3 * usize::from(FORKS), "alike: {drawn:?}");
    for (number, (_, session)) in clones.iter().enumerate() {
        let own = output(session, "cat /work/own").await;
        assert_eq!(own, format!("{number}\n"));
    }

    // A fork of a fork, and the source rolled back to the first instant.
    let (mut fork, in_fork) = clones.remove(0);
    let again = files(&lab, "again");
    save_frozen(&mut *fork, &in_fork, &again).await;
    source.destroy().await.unwrap();
    for (files, own) in [(&again, "0\n"), (&saved, "")] {
        let vm = restore(&lab, &driver, files, "source").await;
        let session = open(&*vm).await;
        session.renew(&renewal(FORKS)).await.unwrap();
        assert_eq!(output(&session, "cat /work/own").await, own);
        let (mut counter, _) = session.attach(&named("counter")).await.unwrap();
        let lines = counted(&mut counter, 3).await;
        assert_eq!(lines[2].0, lines[0].0 + 2);
        vm.destroy().await.unwrap();
    }
    fork.destroy().await.unwrap();
    for (vm, _) in clones {
        vm.destroy().await.unwrap();
    }
    lab.assert_empty();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_detached_exec_survives_its_session_and_loses_no_byte() {
    let lab = Lab::new();
    let driver = booted::qemu(&lab);
    let vm = boot(&lab, &driver, "detached").await;
    let session = open(&*vm).await;
    // More than the buffer and the pipe hold, so it waits until somebody reads.
    let much = command("seq 1 100000; touch /work/written; read line; echo got $line; exit 3");
    session.launch("much", &much).await.unwrap();
    let again = session.launch("much", &much).await.unwrap_err();
    assert_eq!(refused(&again), RefusedCode::Invalid);
    let none = command("no-such-shell");
    let none = ExecSpec {
        program: Program::Command {
            argv: vec!["no-such-program".into()],
        },
        ..none
    };
    let none = session.launch("none", &none).await.unwrap_err();
    assert_eq!(refused(&none), RefusedCode::NoInterpreter);
    let (mut exec, attached) = session.attach(&named("much")).await.unwrap();
    assert_eq!(attached.stdout_at, 0);
    let mut read = bytes(&mut exec).await;
    drop((exec, session));

    let session = open(&*vm).await;
    assert_eq!(output(&session, "ls /work/written || true").await, "");
    let listed = session.list().await.unwrap();
    assert_eq!(listed.len(), 1, "{listed:?}");
    assert_eq!(listed[0].state, DetachedState::Running);
    let from = AttachSpec {
        stdout_from: Some(read.len() as u64),
        ..named("much")
    };
    let (mut exec, attached) = session.attach(&from).await.unwrap();
    assert_eq!(attached.stdout_at, read.len() as u64);
    while !read.ends_with(b"\n100000\n") {
        read.extend(bytes(&mut exec).await);
    }
    exec.stdin().write(b"in").await.unwrap();

    // Another takes over, with what was not sent yet, and the first is told.
    let other = open(&*vm).await;
    let from = AttachSpec {
        stdout_from: Some(read.len() as u64),
        ..named("much")
    };
    let (mut second, attached) = other.attach(&from).await.unwrap();
    assert_eq!(attached.stdin_at, 2);
    let told = exec.next().await.unwrap_err();
    assert_eq!(refused(&told), RefusedCode::TakenOver);
    let running = other.forget("much").await.unwrap_err();
    assert_eq!(refused(&running), RefusedCode::Invalid);
    second.stdin().write(b"put\n").await.unwrap();
    let (read, outcome) = to_end(&mut second, read).await;
    let expected: String = (1..=100_000).map(|number| format!("{number}\n")).collect();
    assert!(read == format!("{expected}got input\n").as_bytes());
    assert_eq!(outcome.exit_code(), 3);

    // The outcome is there until it is forgotten.
    assert_eq!(session.list().await.unwrap()[0].state, DetachedState::Ended);
    let (mut third, _) = session.attach(&named("much")).await.unwrap();
    let (_, outcome) = to_end(&mut third, Vec::new()).await;
    assert_eq!(outcome.exit_code(), 3);
    session.forget("much").await.unwrap();
    assert_eq!(session.list().await.unwrap(), []);
    let gone = session.attach(&named("much")).await.err().unwrap();
    assert_eq!(refused(&gone), RefusedCode::NotFound);
    vm.destroy().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_that_do_not_stand_still_in_time_are_told_and_go_on() {
    let lab = Lab::new();
    let driver = booted::qemu(&lab);
    let vm = boot(&lab, &driver, "bomb").await;
    let session = open(&*vm).await;
    let bomb = "bomb() { bomb | bomb & }; bomb; echo off; sleep 1000";
    let mut exec = session.exec(&command(bomb)).await.unwrap();
    assert_eq!(bytes(&mut exec).await, b"off\n");
    let limit = Duration::from_millis(1);
    let error = session.freeze(limit).await.unwrap_err();
    assert_eq!(refused(&error), RefusedCode::Busy);
    // It is as fresh as before.
    assert_eq!(output(&session, "echo on").await, "on\n");
    exec.stdin().signal(9).await.unwrap();
    to_end(&mut exec, Vec::new()).await;
    session.freeze(FREEZE).await.unwrap();
    let stale = session.freeze(FREEZE).await.unwrap_err();
    assert_eq!(refused(&stale), RefusedCode::Stale);
    session.thaw(&thaw()).await.unwrap();
    let fresh = session.thaw(&thaw()).await.unwrap_err();
    assert_eq!(refused(&fresh), RefusedCode::Invalid);
    assert_eq!(output(&session, "echo on").await, "on\n");
    vm.destroy().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_host_gets_its_version_and_nothing_newer() {
    let lab = Lab::new();
    let driver = booted::qemu(&lab);
    let vm = boot(&lab, &driver, "older").await;
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut stream = connect(vm.vsock_path(), SESSION_PORT, deadline)
        .await
        .unwrap();
    let hello = Hello {
        max_version: 1,
        ..Hello::ours()
    };
    let mut bytes = Vec::new();
    to_frame(0, Kind::Hello, &hello).unwrap().encode(&mut bytes);
    Frame::new(1, Kind::List, Vec::new()).encode(&mut bytes);
    stream.write_all(&bytes).await.unwrap();
    // It closes after its goodbye.
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let mut decoder = Decoder::new();
    decoder.push(&answer);
    let welcome = decoder.next_frame().unwrap().unwrap();
    assert_eq!(from_frame::<Welcome>(&welcome).unwrap().version, 1);
    let goodbye = decoder.next_frame().unwrap().unwrap();
    let goodbye: Goodbye = from_frame(&goodbye).unwrap();
    assert_eq!(goodbye.reason, "a List frame is not expected here");
    vm.destroy().await.unwrap();
}
