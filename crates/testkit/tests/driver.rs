//! The driver trait, on the real QEMU: boot, pause, resume, destroy.

#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]

use std::time::Duration;

use firelane_guest_proto::SESSION_PORT;
use firelane_guest_proto::message::{ExecSpec, Limits, Program};
use firelane_image::Store;
use firelane_testkit::Lab;
use firelane_vmm::connect::connect;
use firelane_vmm::driver::{Acceleration, Driver, Machine, MicroVm};
use firelane_vmm::qemu::{Qemu, default_program};
use firelane_vmm::session::{Event, Session};
use firelane_vmm::timeline::{Phase, Timeline};
use tokio::time::{Instant, sleep, timeout};

/// A microVM of the template `base`, by emulation, which every host has.
async fn boot(lab: &Lab) -> Box<dyn MicroVm> {
    let template = Store::open(lab.home()).unwrap().get("base").unwrap();
    let driver = Qemu {
        program: default_program(),
        jail_program: lab.bin().join("firelane"),
        run_base: lab.run_dir(),
        acceleration: Acceleration::Tcg,
        tsc_khz: firelane_sys::tsc::measure_khz(),
    };
    let machine = Machine {
        id: "driver-test".into(),
        kernel: template.vmlinux(),
        initrd: template.initrd(&lab.bin().join("firelane-guest")).unwrap(),
        rootfs: template.rootfs(),
        memory_mib: 256,
        vcpus: 1,
        boot_timeout: Duration::from_secs(120),
    };
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
    let argv = ["cut", "-d ", "-f1", "/proc/uptime"]
        .map(String::from)
        .to_vec();
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
            Event::Ended(_) => return String::from_utf8(text).unwrap().trim().parse().unwrap(),
            Event::Started | Event::Stderr(_) => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_microvm_stands_still_and_goes_on_where_it_was() {
    const PAUSE: Duration = Duration::from_secs(5);
    let lab = Lab::new();
    let mut vm = boot(&lab).await;
    let deadline = Instant::now() + Duration::from_secs(30);
    let stream = connect(vm.vsock_path(), SESSION_PORT, deadline)
        .await
        .unwrap();
    let session = Session::open(stream).await.unwrap();
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
