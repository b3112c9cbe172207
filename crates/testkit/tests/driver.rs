//! The driver trait, on the real QEMU: boot, pause, resume, snapshot, restore, destroy.

#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]

use std::fs;
use std::time::Duration;

use firelane_guest_proto::SESSION_PORT;
use firelane_guest_proto::message::{ExecSpec, Limits, Program};
use firelane_image::Store;
use firelane_testkit::Lab;
use firelane_vmm::connect::connect;
use firelane_vmm::driver::{
    Acceleration, BootError, Driver, Machine, MicroVm, SnapshotError, SnapshotFiles,
};
use firelane_vmm::qemu::{Qemu, default_program};
use firelane_vmm::session::{Event, Session};
use firelane_vmm::timeline::{Phase, Timeline};
use tokio::time::{Instant, sleep, timeout};

/// QEMU by emulation, which every host has.
fn driver(lab: &Lab) -> Qemu {
    Qemu {
        program: default_program(),
        jail_program: lab.bin().join("firelane"),
        run_base: lab.run_dir(),
        acceleration: Acceleration::Tcg,
        tsc_khz: firelane_sys::tsc::measure_khz(),
    }
}

/// A microVM of the template `base`.
fn machine(lab: &Lab, id: &str) -> Machine {
    let template = Store::open(lab.home()).unwrap().get("base").unwrap();
    Machine {
        id: id.into(),
        kernel: template.vmlinux(),
        initrd: template.initrd(&lab.bin().join("firelane-guest")).unwrap(),
        rootfs: template.rootfs(),
        memory_mib: 256,
        vcpus: 1,
        boot_timeout: Duration::from_secs(120),
        snapshot: None,
    }
}

async fn boot(lab: &Lab) -> Box<dyn MicroVm> {
    let (driver, machine) = (driver(lab), machine(lab, "driver-test"));
    let mut timeline = Timeline::start();
    let vm = driver.boot(&machine, &mut timeline).await.unwrap();
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

/// What a shell command prints.
async fn output(session: &Session, script: &str) -> String {
    let argv = ["bash", "-c", script].map(String::from).to_vec();
    let spec = ExecSpec {
        trace_id: "test".into(),
        program: Program::Command { argv },
        env: Vec::new(),
        cwd: None,
        limits: Limits::default(),
        pty: None,
    };
    let mut exec = session.exec(&spec).await.unwrap();
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

/// A snapshot of a booted guest, in which a file was written.
async fn snapshot(lab: &Lab, driver: &Qemu) -> SnapshotFiles {
    let files = SnapshotFiles {
        memory: lab.path().join("memory"),
        state: lab.path().join("state"),
    };
    let machine = Machine {
        snapshot: Some(files.clone()),
        ..machine(lab, "template")
    };
    let vm = driver.boot(&machine, &mut Timeline::start()).await.unwrap();
    let session = open(&*vm).await;
    output(&session, "echo template > /tmp/who").await;
    drop(session);
    vm.snapshot().await.unwrap();
    lab.assert_empty();
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn clones_go_on_from_the_snapshot_and_do_not_see_each_other() {
    let lab = Lab::new();
    let driver = driver(&lab);
    let files = snapshot(&lab, &driver).await;
    let bytes = || {
        (
            fs::read(&files.memory).unwrap(),
            fs::read(&files.state).unwrap(),
        )
    };
    let before = bytes();

    let mut clones = Vec::new();
    for name in ["one", "two"] {
        let mut timeline = Timeline::start();
        let machine = machine(&lab, name);
        let vm = driver
            .restore(&machine, &files, &mut timeline)
            .await
            .unwrap();
        assert!(timeline.at(Phase::Loaded) < timeline.at(Phase::GuestReady));
        clones.push((name, vm));
    }
    for (name, vm) in &clones {
        let session = open(&**vm).await;
        let found = output(&session, &format!("cat /tmp/who; echo {name} > /tmp/who")).await;
        assert_eq!(found, "template\n");
    }
    for (name, vm) in clones {
        let session = open(&*vm).await;
        assert_eq!(output(&session, "cat /tmp/who").await, format!("{name}\n"));
        drop(session);
        vm.destroy().await.unwrap();
    }
    assert!(bytes() == before, "a clone has written to its template");
    lab.assert_empty();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_is_cut_short_is_refused_and_leaves_nothing() {
    let lab = Lab::new();
    let driver = driver(&lab);
    let files = snapshot(&lab, &driver).await;
    let state = fs::read(&files.state).unwrap();
    let half = SnapshotFiles {
        state: lab.path().join("half"),
        ..files
    };
    fs::write(&half.state, &state[..state.len() / 2]).unwrap();
    let machine = machine(&lab, "half");
    let restored = driver
        .restore(&machine, &half, &mut Timeline::start())
        .await;
    let error = restored.err().expect("half a state is none");
    assert!(
        matches!(error, BootError::Died(_) | BootError::Load(_)),
        "{error:?}"
    );
    lab.assert_empty();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_microvm_without_a_place_for_it_has_no_snapshot() {
    let lab = Lab::new();
    let vm = boot(&lab).await;
    let error = vm.snapshot().await.unwrap_err();
    assert!(matches!(error, SnapshotError::NoPlace), "{error:?}");
}
