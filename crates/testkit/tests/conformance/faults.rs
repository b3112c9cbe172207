//! A Firecracker that hangs, dies, answers garbage or half a reply, at each step: told by a typed error,
//! within the time it had, and nothing of it is left.

use std::time::Duration;

use firelane_guest_proto::SESSION_PORT;
use firelane_testkit::Lab;
use firelane_testkit::conformance::Subject;
use firelane_vmm::connect::{ConnectError, connect};
use firelane_vmm::driver::{BootError, Driver, Machine, SaveError, SnapshotError, SnapshotFiles};
use firelane_vmm::firecracker::{FindError, Firecracker, Jailing, Place, Version};
use firelane_vmm::timeline::Timeline;
use tokio::time::Instant;

use crate::legs::{bare, fake, fake_file};

/// How long a boot may take here.
const LIMIT: Duration = Duration::from_secs(2);
const KINDS: [&str; 5] = ["hangs", "dies", "garbage", "half", "mute"];

async fn faulty(kind: &str, point: &str) -> Subject {
    let lab = Lab::new();
    let driver = fake(&lab, &format!("fake-firecracker-{kind}-{point}")).await;
    let mut subject = bare(lab, driver.expect("it says its version"));
    subject.machine = Machine {
        kernel: fake_file().into(),
        rootfs: Some(fake_file().into()),
        boot_timeout: LIMIT,
        ..subject.machine
    };
    subject
}

/// Boots with a fault at `point` of every kind; each has to end in an error that fits it.
async fn every_kind_at(point: &str) {
    for kind in KINDS {
        let subject = faulty(kind, point).await;
        let booted = subject.boot("faulty").await;
        let Some(error) = booted.err() else {
            panic!("it booted though its VMM {kind} at {point}");
        };
        match (kind, &error) {
            ("dies", BootError::Died(death)) => {
                assert!(death.stderr.contains("as it was told to"), "{death}");
            }
            ("hangs" | "garbage" | "half" | "mute", BootError::Monitor(_)) => {}
            (_, error) => panic!("{kind} at {point}: {error:?}"),
        }
        subject.lab.assert_empty();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vmm_that_fails_while_it_is_configured_is_told_and_leaves_nothing() {
    for point in ["machine", "kernel", "disk", "vsock", "entropy", "serial"] {
        every_kind_at(point).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vmm_that_fails_to_start_its_guest_is_told_and_leaves_nothing() {
    every_kind_at("action").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vmm_that_never_listens_is_given_up() {
    for kind in ["hangs", "dies"] {
        let subject = faulty(kind, "start").await;
        let booted = subject.boot("deaf").await;
        match (kind, booted.err()) {
            ("hangs", Some(BootError::Monitor(_))) | ("dies", Some(BootError::Died(_))) => {}
            (_, error) => panic!("{kind}: {error:?}"),
        }
        subject.lab.assert_empty();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_does_not_answer_is_given_up() {
    for kind in KINDS {
        let subject = faulty(kind, "connect").await;
        let booted = subject.boot("silent").await;
        match (kind, booted.err()) {
            ("dies", Some(BootError::Died(_))) | (_, Some(BootError::NotReady { .. })) => {}
            (_, error) => panic!("{kind}: {error:?}"),
        }
        subject.lab.assert_empty();
    }
}

/// A snapshot by a stand-in without faults, in the corner of `subject`.
pub(crate) async fn snapshot_in(subject: &Subject) -> SnapshotFiles {
    let files = SnapshotFiles::new(
        subject.lab.path().join("memory"),
        subject.lab.path().join("state"),
    );
    let driver = fake(&subject.lab, "fake-firecracker-version-1.16.1").await;
    let driver = driver.expect("it says its version");
    let machine = Machine {
        snapshot: Some(files.clone()),
        ..subject.named("template")
    };
    let booted = driver.boot(&machine, &mut Timeline::start()).await;
    let saved = booted.expect("it boots").snapshot().await;
    saved.expect("it can be saved");
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vmm_that_fails_to_load_is_told_and_leaves_nothing() {
    for kind in KINDS {
        let subject = faulty(kind, "load").await;
        let files = snapshot_in(&subject).await;
        let restored = subject.restore("faulty", &files);
        match (kind, restored.await.err()) {
            ("dies", Some(BootError::Died(_))) | (_, Some(BootError::Load(_))) => {}
            (_, error) => panic!("{kind}: {error:?}"),
        }
        subject.lab.assert_empty();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vmm_that_fails_to_write_a_snapshot_leaves_none() {
    // A VMM that hangs while it writes has half a minute, and more for its size: not waited for here.
    for kind in ["dies", "garbage", "half", "mute"] {
        let subject = faulty(kind, "create").await;
        let files = SnapshotFiles::new(
            subject.lab.path().join("memory"),
            subject.lab.path().join("state"),
        );
        let machine = Machine {
            snapshot: Some(files.clone()),
            ..subject.named("faulty")
        };
        let booted = subject.boot_machine(&machine).await;
        let saved = booted.expect("it boots").snapshot().await;
        match saved {
            Err(SnapshotError::Refused(_)) => {}
            other => panic!("{kind}: {other:?}"),
        }
        subject.lab.assert_empty();
        let left: Vec<_> = std::fs::read_dir(subject.lab.path())
            .expect("our own folder")
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.starts_with("memory") || name.starts_with("state"))
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

/// A VMM of 1.16 that was paused and not saved hears nothing any more: who cannot reach the guest again ends it.
#[tokio::test(flavor = "multi_thread")]
async fn a_save_that_fails_before_it_begins_may_leave_the_guest_deaf() {
    let subject = faulty("mute", "create").await;
    let mut vm = subject.boot("deaf").await.expect("it boots");
    let files = SnapshotFiles::new(
        subject.lab.path().join("memory"),
        subject.lab.path().join("state"),
    );
    let error = vm.save(&files).await.expect_err("it does not save");
    assert!(matches!(error, SaveError::Refused(_)), "{error:?}");
    assert!(!files.memory.exists() && !files.state.exists());
    let deadline = Instant::now() + LIMIT;
    let error = connect(vm.vsock_path(), SESSION_PORT, deadline).await;
    let error = error.expect_err("nothing arrives");
    assert!(matches!(error, ConnectError::Silent { .. }), "{error:?}");
    vm.destroy().await.expect("it ends");
    subject.lab.assert_empty();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vmm_that_dies_while_it_saves_is_told() {
    let subject = faulty("dies", "create").await;
    let mut vm = subject.boot("dies").await.expect("it boots");
    let files = SnapshotFiles::new(
        subject.lab.path().join("memory"),
        subject.lab.path().join("state"),
    );
    vm.save(&files).await.expect_err("it does not save");
    let death = vm.died().await;
    assert!(death.stderr.contains("as it was told to"), "{death}");
    vm.destroy().await.expect("nothing is in the way");
    subject.lab.assert_empty();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_is_too_old_is_refused_with_the_reason() {
    let lab = Lab::new();
    let old = fake(&lab, "fake-firecracker-version-1.12.1").await;
    match old.err() {
        Some(FindError::TooOld { found, .. }) => assert_eq!(found, Version::new(1, 12, 1)),
        other => panic!("{other:?}"),
    }
    // One that boots, but whose restores are not sound.
    let driver = fake(&lab, "fake-firecracker-version-1.16.0").await;
    let mut subject = bare(lab, driver.expect("it can boot"));
    subject.machine.kernel = fake_file().into();
    let files = snapshot_in(&subject).await;
    let restored = subject.restore("old", &files);
    let error = restored.await.err().expect("it is too old");
    assert!(matches!(error, BootError::NoVmm { .. }), "{error:?}");
    assert!(
        error
            .remedy()
            .is_some_and(|remedy| remedy.contains("--cold"))
    );
    subject.lab.assert_empty();
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_that_a_version_does_not_know_are_not_sent() {
    let lab = Lab::new();
    // The stand-in refuses what this version refuses.
    let driver = fake(&lab, "fake-firecracker-version-1.13.2").await;
    let mut subject = bare(lab, driver.expect("it can boot"));
    subject.machine.kernel = fake_file().into();
    let booted = subject.boot("older").await;
    booted.expect("it boots").destroy().await.expect("it ends");
    subject.lab.assert_empty();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jailer_of_another_version_is_refused() {
    let lab = Lab::new();
    let name = |name: &str| {
        let path = lab.path().join(name);
        std::os::unix::fs::symlink(fake_file(), &path).expect("our own folder");
        path
    };
    let place = Place {
        program: name("fake-firecracker"),
        jailing: Jailing::Jailer(name("fake-firecracker-version-1.15.1")),
        jail_program: fake_file().into(),
        run_base: lab.run_dir(),
    };
    let found = Firecracker::find(place).await;
    let error = found.expect_err("they do not fit");
    assert!(matches!(error, FindError::OtherJailer { .. }), "{error:?}");
    assert!(error.remedy().contains("v1.16.1"), "{}", error.remedy());
}
