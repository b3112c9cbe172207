//! The cases, each a microVM's whole life.

#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use firelane_sys::jail::Controls;
use firelane_sys::process::ProcessId;
use firelane_vmm::driver::{BootError, Machine, SaveError, SnapshotError, SnapshotFiles};
use firelane_vmm::rundir;
use firelane_vmm::timeline::{Phase, Timeline};
use tokio::time::timeout;

use super::subject::{Program, Subject, open};
use crate::SmallDisk;

/// How long something that must happen may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// A guest boots, answers, and is gone.
///
/// # Panics
/// If not.
pub async fn boots_answers_and_is_gone(subject: Subject) {
    let mut timeline = Timeline::start();
    let machine = subject.named("boots");
    let vm = subject.driver.boot(&machine, &mut timeline).await.unwrap();
    let phases: Vec<Phase> = timeline.marks().iter().map(|(phase, _)| *phase).collect();
    let expected = [
        Phase::Spawned,
        Phase::Configured,
        Phase::Started,
        Phase::GuestReady,
    ];
    assert_eq!(phases, expected);
    let on_record = subject.lab.microvms();
    assert_eq!(on_record.len(), 1);
    assert_eq!(on_record[0].vmm().map(|vmm| vmm.pid), Some(vm.pid()));

    let session = open(&*vm).await;
    let said = subject
        .said(&session, &Program::Echo("over and out".into()))
        .await;
    assert_eq!(said, "over and out\n");
    session.close().await;
    vm.destroy().await.unwrap();
    on_record[0].assert_gone();
    subject.lab.assert_empty();
}

/// A paused guest answers nothing, and goes on where it was; doing either twice is no fault.
///
/// # Panics
/// If not.
pub async fn stands_still_while_paused(subject: Subject) {
    let booted = subject.boot("paused").await;
    let mut vm = booted.unwrap();
    let session = open(&*vm).await;
    assert_eq!(subject.said(&session, &Program::Count).await, "1\n");
    vm.pause().await.unwrap();
    vm.pause().await.unwrap();
    session.set_paused(true);
    let count = (subject.command)(&Program::Count);
    let silent = timeout(Duration::from_secs(2), async {
        let said = subject.said(&session, &Program::Count).await;
        panic!("a paused guest said {said} to {count:?}");
    });
    let Err(_elapsed) = silent.await;
    vm.resume().await.unwrap();
    vm.resume().await.unwrap();
    session.set_paused(false);
    // What was asked while it was paused may or may not have been done; the numbers go on.
    let number: u64 = subject
        .said(&session, &Program::Count)
        .await
        .trim()
        .parse()
        .unwrap();
    assert!((2..=3).contains(&number), "{number}");
    drop(session);
    vm.destroy().await.unwrap();
    subject.lab.assert_empty();
}

/// A snapshot of a guest that has counted to 2.
pub(super) async fn snapshot(subject: &Subject) -> SnapshotFiles {
    let files = SnapshotFiles::new(
        subject.lab.path().join("memory"),
        subject.lab.path().join("state"),
    );
    let machine = Machine {
        snapshot: Some(files.clone()),
        ..subject.named("template")
    };
    let booted = subject.boot_machine(&machine).await;
    let vm = booted.unwrap();
    assert_eq!(subject.count(&*vm).await, 1);
    assert_eq!(subject.count(&*vm).await, 2);
    vm.snapshot().await.unwrap();
    subject.lab.assert_empty();
    files
}

/// Clones go on from their snapshot, do not see each other, and do not change it.
///
/// # Panics
/// If not.
pub async fn clones_go_on_from_the_snapshot_and_do_not_see_each_other(subject: Subject) {
    let files = snapshot(&subject).await;
    let size = u64::from(subject.machine.memory_mib) << 20;
    assert_eq!(fs::metadata(&files.memory).unwrap().len(), size);
    let bytes = || {
        let read = |path| fs::read(path).unwrap();
        (read(&files.memory), read(&files.state))
    };
    let before = bytes();

    let mut clones = Vec::new();
    for name in ["one", "two", "three"] {
        let (mut timeline, machine) = (Timeline::start(), subject.named(name));
        let restored = subject.driver.restore(&machine, &files, &mut timeline);
        let vm = restored.await.unwrap();
        assert!(timeline.at(Phase::Loaded) <= timeline.at(Phase::GuestReady));
        clones.push(vm);
    }
    for vm in &clones {
        assert_eq!(subject.count(&**vm).await, 3);
    }
    assert_eq!(subject.count(&*clones[0]).await, 4);
    assert_eq!(subject.count(&*clones[1]).await, 4);
    for vm in clones {
        vm.destroy().await.unwrap();
    }
    assert!(bytes() == before, "a clone has written to its snapshot");
    subject.lab.assert_empty();
}

/// A microVM that is saved goes on, and so do its clones; one that is restored can be saved again.
///
/// # Panics
/// If not.
pub async fn a_saved_microvm_goes_on_and_so_do_its_clones(subject: Subject) {
    let first = snapshot(&subject).await;
    let again = SnapshotFiles::new(
        subject.lab.path().join("again.memory"),
        subject.lab.path().join("again.state"),
    );
    let mut vm = subject.restore("source", &first).await.unwrap();
    assert_eq!(subject.count(&*vm).await, 3);
    let session = open(&*vm).await;
    vm.save(&again).await.unwrap();
    assert_eq!(
        subject.answers(&session).await,
        subject.driver.keeps_connections()
    );
    drop(session);
    assert_eq!(subject.count(&*vm).await, 4);

    let copy = subject.restore("clone", &again).await.unwrap();
    assert_eq!(subject.count(&*copy).await, 4);
    assert_eq!(subject.count(&*vm).await, 5);
    copy.destroy().await.unwrap();
    vm.destroy().await.unwrap();
    subject.lab.assert_empty();
}

/// A microVM that was booted without a place for a snapshot gives none, and is gone.
///
/// # Panics
/// If not.
pub async fn without_a_place_there_is_no_snapshot(subject: Subject) {
    let booted = subject.boot("placeless").await;
    let error = booted.unwrap().snapshot().await.unwrap_err();
    assert!(matches!(error, SnapshotError::NoPlace), "{error:?}");
}

/// A snapshot that was cut short, of nothing, or of something else is refused, and leaves nothing.
///
/// # Panics
/// If not.
pub async fn a_spoilt_snapshot_is_refused_and_leaves_nothing(subject: Subject) {
    let files = snapshot(&subject).await;
    let state = fs::read(&files.state).unwrap();
    let flipped: Vec<u8> = state.iter().map(|byte| byte ^ 0x55).collect();
    let spoilt = SnapshotFiles {
        state: subject.lab.path().join("spoilt"),
        ..files
    };
    for content in [
        &state[..state.len() / 2],
        b"",
        b"no snapshot at all\n",
        &flipped,
    ] {
        fs::write(&spoilt.state, content).unwrap();
        let restored = subject.restore("spoilt", &spoilt).await;
        let error = restored.err().expect("this is no snapshot");
        assert!(
            matches!(error, BootError::Died(_) | BootError::Load(_)),
            "{error:?}"
        );
        subject.lab.assert_empty();
    }
}

/// A file that is missing is named before anything is started.
///
/// # Panics
/// If not.
pub async fn a_missing_file_is_named(subject: Subject) {
    let machine = Machine {
        kernel: subject.lab.path().join("nowhere"),
        ..subject.named("missing")
    };
    let booted = subject.boot_machine(&machine).await;
    match booted.err().expect("there is no kernel") {
        BootError::Unreadable { path, .. } => assert_eq!(path, machine.kernel),
        error => panic!("{error:?}"),
    }
    let files = SnapshotFiles::new(
        subject.lab.path().join("no-memory"),
        subject.lab.path().join("no-state"),
    );
    let restored = subject.restore("missing", &files).await;
    match restored.err().expect("there is no snapshot") {
        BootError::Unreadable { path, .. } => assert!(path == files.memory || path == files.state),
        error => panic!("{error:?}"),
    }
    subject.lab.assert_empty();
}

/// A name that is in use is refused, and whoever has it is left alone.
///
/// # Panics
/// If not.
pub async fn a_name_is_used_once(subject: Subject) {
    let vm = subject.boot("twice").await.unwrap();
    let second = subject.boot("twice").await;
    let error = second.err().expect("the name is in use");
    assert!(matches!(error, BootError::RunDir(_)), "{error:?}");
    assert_eq!(subject.count(&*vm).await, 1);
    vm.destroy().await.unwrap();
    subject.lab.assert_empty();
}

/// A path that no socket can be bound to is refused before anything is started.
///
/// # Panics
/// If not.
pub async fn a_path_too_long_for_a_socket_is_refused(subject: Subject) {
    // The run directories are below /tmp; with this name the socket's path has more than 107 bytes.
    let deep = format!("{}{}", "a".repeat(50), "b".repeat(45));
    let booted = subject.boot(&deep).await;
    let error = booted.err().expect("no socket fits there");
    assert!(matches!(error, BootError::RunDir(_)), "{error:?}");
    subject.lab.assert_empty();
}

/// Every control on the VMM is in force that this host could have, and it is in its cgroups.
///
/// # Panics
/// If not.
pub async fn its_vmm_is_confined(subject: Subject) {
    let vm = subject.boot("confined").await.unwrap();
    let controls = Controls::of(vm.pid()).unwrap();
    assert_eq!(controls.lacking(), None, "{controls:?}");
    let member = fs::read_to_string(format!("/proc/{}/cgroup", vm.pid())).unwrap();
    for controller in &vm.cgroups().bounded {
        let place = format!("/firelane/{}", subject.named("confined").id);
        let its = member.lines().find(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let controllers = fields.next().unwrap_or_default();
            controllers.is_empty() || controllers.split(',').any(|name| name == controller)
        });
        assert!(
            its.is_some_and(|line| line.ends_with(&place)),
            "{controller}: {member}"
        );
    }
    vm.destroy().await.unwrap();
    subject.lab.assert_empty();
}

/// The end of a VMM that nobody asked for is told, and what it leaves is removed.
///
/// # Panics
/// If not.
pub async fn a_death_is_told(subject: Subject) {
    let booted = subject.boot("dies").await;
    let mut vm = booted.unwrap();
    ProcessId::of(vm.pid()).unwrap().kill().unwrap();
    let death = timeout(PATIENCE, vm.died()).await.unwrap();
    assert_eq!(death.status, "signal 9");
    vm.destroy().await.unwrap();
    subject.lab.assert_empty();
}

/// A microVM that is dropped ends; its files are left to the sweep, which removes them.
///
/// # Panics
/// If not.
pub async fn what_is_dropped_ends_and_is_swept(subject: Subject) {
    let booted = subject.boot("dropped").await;
    let vm = booted.unwrap();
    let vmm = ProcessId::of(vm.pid()).unwrap();
    drop(vm);
    let ended = async {
        while vmm.lives() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, ended).await.expect("its VMM ends");
    let swept = rundir::sweep(&subject.lab.run_dir());
    assert_eq!(swept.len(), 1);
    swept[0].result.as_ref().unwrap();
    subject.lab.assert_empty();
}

/// A snapshot of a guest that has touched little is small: its memory is a file with holes.
///
/// # Panics
/// If not.
pub async fn a_snapshot_holds_what_was_touched(subject: Subject) {
    const BLOCK: u64 = 512;
    let files = snapshot(&subject).await;
    let meta = fs::metadata(&files.memory).unwrap();
    assert!(
        meta.blocks() * BLOCK < meta.len() / 2,
        "{} of {} bytes",
        meta.blocks() * BLOCK,
        meta.len()
    );
}

/// A microVM that cannot be saved because there is no space goes on, and leaves nothing of the snapshot.
///
/// # Panics
/// If not.
pub async fn a_full_disk_is_told_and_the_microvm_goes_on(subject: Subject) {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can mount a small file system");
        return;
    }
    let disk = SmallDisk::mount(&subject.lab.path().join("small"), "4k");
    let first = snapshot(&subject).await;
    let mut vm = subject.restore("source", &first).await.unwrap();
    assert_eq!(subject.count(&*vm).await, 3);
    let small = SnapshotFiles::new(disk.path().join("memory"), disk.path().join("state"));
    let error = vm.save(&small).await.unwrap_err();
    assert!(matches!(error, SaveError::NoSpace { .. }), "{error:?}");
    assert_eq!(fs::read_dir(disk.path()).unwrap().count(), 0);
    assert_eq!(subject.count(&*vm).await, 4);
    // And it can be saved where there is space.
    let folder = subject.lab.path();
    let large = SnapshotFiles::new(folder.join("large.memory"), folder.join("large.state"));
    vm.save(&large).await.unwrap();
    assert_eq!(subject.count(&*vm).await, 5);
    vm.destroy().await.unwrap();
    drop(disk);
    subject.lab.assert_empty();
}

/// A microVM that cannot become a snapshot because there is no space leaves nothing.
///
/// # Panics
/// If not.
pub async fn a_full_disk_leaves_no_snapshot(subject: Subject) {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can mount a small file system");
        return;
    }
    let disk = SmallDisk::mount(&subject.lab.path().join("small"), "4k");
    let small = SnapshotFiles::new(disk.path().join("memory"), disk.path().join("state"));
    let machine = Machine {
        snapshot: Some(small),
        ..subject.named("template")
    };
    let vm = subject.boot_machine(&machine).await.unwrap();
    let error = vm.snapshot().await.unwrap_err();
    assert!(matches!(error, SnapshotError::Refused(_)), "{error:?}");
    assert_eq!(fs::read_dir(disk.path()).unwrap().count(), 0);
    drop(disk);
    subject.lab.assert_empty();
}

/// A guest boots with a disk, whose reads are bounded, and so do clones of it.
///
/// # Panics
/// If not.
pub async fn boots_with_a_disk(subject: Subject) {
    let disk = subject.lab.path().join("disk");
    fs::write(&disk, vec![7; 1 << 20]).unwrap();
    let subject = Subject {
        machine: Machine {
            rootfs: Some(disk),
            ..subject.machine
        },
        ..subject
    };
    let files = snapshot(&subject).await;
    let vm = subject.restore("clone", &files).await.unwrap();
    assert_eq!(subject.count(&*vm).await, 3);
    vm.destroy().await.unwrap();
    subject.lab.assert_empty();
}
