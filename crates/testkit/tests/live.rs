//! Snapshots of microVMs that go on: saved while programs run, restored as forks, again and again.

#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use firelane_guest_proto::SESSION_PORT;
use firelane_guest_proto::message::{ExecSpec, Limits, Program};
use firelane_image::Store;
use firelane_testkit::Lab;
use firelane_vmm::connect::connect;
use firelane_vmm::driver::{Acceleration, Driver, Machine, MicroVm, SaveError, SnapshotFiles};
use firelane_vmm::qemu::{Qemu, default_program};
use firelane_vmm::session::{Event, Exec, Session};
use firelane_vmm::timeline::Timeline;
use tokio::time::Instant;

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

/// A microVM of the template `base`. Its name is this test's own: tests run side by side.
fn machine(lab: &Lab, id: &str) -> Machine {
    let own = lab.path().file_name().unwrap().to_str().unwrap();
    let template = Store::open(lab.home()).unwrap().get("base").unwrap();
    Machine {
        id: format!("{own}-{id}"),
        kernel: template.vmlinux(),
        initrd: template.initrd(&lab.bin().join("firelane-guest")).unwrap(),
        rootfs: template.rootfs(),
        memory_mib: 256,
        vcpus: 1,
        boot_timeout: Duration::from_secs(120),
        snapshot: None,
    }
}

fn files(lab: &Lab, name: &str) -> SnapshotFiles {
    SnapshotFiles {
        memory: lab.path().join(format!("{name}.memory")),
        state: lab.path().join(format!("{name}.state")),
    }
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

#[tokio::test(flavor = "multi_thread")]
async fn a_saved_microvm_goes_on_and_so_do_its_clones_and_theirs() {
    let lab = Lab::new();
    let driver = driver(&lab);
    let mut source = boot(&lab, &driver, "source").await;
    let session = open(&*source).await;
    output(&session, "echo first > /tmp/who").await;
    // It floods its output, so that a frame is cut wherever the microVM is paused.
    let mut flood = session
        .exec(&command("for ((i = 1; ; i++)); do echo $i; done"))
        .await
        .unwrap();
    let mut seen = bytes(&mut flood).await;

    let first = files(&lab, "first");
    source.save(&first).await.unwrap();
    for path in [&first.memory, &first.state] {
        // It holds what a user did.
        let mode = fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o400);
    }
    // The source's program was not lost, nor a byte of what it says.
    while seen.len() < 100_000 {
        seen.extend(bytes(&mut flood).await);
    }
    let lines = String::from_utf8(seen).unwrap();
    let (whole, _) = lines.rsplit_once('\n').unwrap();
    for (line, expected) in whole.lines().zip(1u64..) {
        assert_eq!(line, expected.to_string());
    }
    drop(flood);

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
    let driver = driver(&lab);
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

/// A file system of a few MiB, gone with its value.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(path: std::path::PathBuf) -> SmallDisk {
        fs::create_dir(&path).unwrap();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"])
            .arg(&path)
            .status();
        assert!(mounted.unwrap().success());
        SmallDisk(path)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let gone = std::process::Command::new("umount").arg(&self.0).status();
        assert!(gone.is_ok_and(|status| status.success()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_told_and_the_microvm_goes_on() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can mount a small file system");
        return;
    }
    let lab = Lab::new();
    let driver = driver(&lab);
    let mut source = boot(&lab, &driver, "source").await;
    let session = open(&*source).await;
    let disk = SmallDisk::mount(lab.path().join("small"));
    let files = SnapshotFiles {
        memory: disk.0.join("memory"),
        state: disk.0.join("state"),
    };
    let error = source.save(&files).await.unwrap_err();
    assert!(matches!(error, SaveError::NoSpace { .. }), "{error:?}");
    assert_eq!(fs::read_dir(&disk.0).unwrap().count(), 0);
    assert_eq!(output(&session, "echo on").await, "on\n");
    // And it can be saved where there is space.
    source.save(&self::files(&lab, "saved")).await.unwrap();
    source.destroy().await.unwrap();
    drop(disk);
    lab.assert_empty();
}
