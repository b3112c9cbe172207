//! The bare guest in a real Firecracker that hostd starts, through the conformance suite of drivers.
//!
//! Where a case needs no more than the driver, an ordinary user is who drives: signals, files and sockets of
//! another user's VMM are what goes wrong. The other cases look at processes and records that are not that
//! user's.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::future::Future;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use firelane_sys::jail::Controls;
use firelane_testkit::Lab;
use firelane_testkit::conformance::{Subject, bare_command, bare_machine, open};
use firelane_testkit::hostd::{Hostd, NOBODY, as_user};
use firelane_vmm::driver::{BootError, Machine, MicroVm, Refusal, SnapshotFiles};
use firelane_vmm::firecracker::{Firecracker, Jailing, MemoryFrom, Place};
use firelane_vmm::memory::CheckedMemory;
use tokio::time::timeout;

use crate::begun::is_root;

/// Memory of a guest in MiB.
const MEMORY_MIB: u32 = 128;

/// How long something that must happen may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A case of the suite, if there can be a hostd.
macro_rules! case {
    ($as:ident, $memory:ident, $($case:ident),+ $(,)?) => {
        $(
            #[test]
            #[ignore = "needs a real Firecracker: FIRELANE_FIRECRACKER names it"]
            fn $case() {
                if !is_root(stringify!($case)) {
                    return;
                }
                let lab = Lab::new();
                let hostd = Hostd::start(&lab, &[]);
                super::$as(|| async {
                    let subject = super::subject(&hostd, super::MemoryFrom::$memory).await;
                    conformance::$case(subject).await;
                });
                // What is dropped is removed a moment later.
                hostd.wait_until_empty();
            }
        )+
    };
}

/// All of them, each as the user that it takes.
macro_rules! cases {
    ($memory:ident) => {
        use firelane_testkit::Lab;
        use firelane_testkit::conformance;
        use firelane_testkit::hostd::Hostd;

        use crate::begun::is_root;

        case!(
            as_nobody,
            $memory,
            stands_still_while_paused,
            clones_go_on_from_the_snapshot_and_do_not_see_each_other,
            a_saved_microvm_goes_on_and_so_do_its_clones,
            without_a_place_there_is_no_snapshot,
            a_spoilt_snapshot_is_refused_and_leaves_nothing,
            a_missing_file_is_named,
            a_name_is_used_once,
            a_path_too_long_for_a_socket_is_refused,
            what_is_dropped_ends_and_is_swept,
            a_snapshot_holds_what_was_touched,
            boots_with_a_disk,
        );
        case!(
            as_root,
            $memory,
            boots_answers_and_is_gone,
            its_vmm_is_confined,
            a_death_is_told,
            a_vmm_that_waits_restores_or_leaves_nothing,
            a_vmm_that_dies_while_it_waits_is_told,
            a_full_disk_is_told_and_the_microvm_goes_on,
            a_full_disk_leaves_no_snapshot,
        );
    };
}

mod mapped {
    cases!(File);
}

mod paged {
    cases!(Userfault);
}

/// Each thread of the runtime is this user's, because the thread is that starts it.
fn as_nobody<F: Future<Output = ()>>(act: impl FnOnce() -> F + Send) {
    as_user(NOBODY, NOBODY, || as_root(act));
}

fn as_root<F: Future<Output = ()>>(act: impl FnOnce() -> F) {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.enable_all().build().expect("threads");
    runtime.block_on(act());
}

/// Of whoever calls it.
async fn subject(hostd: &Hostd, memory: MemoryFrom) -> Subject {
    let lab = Lab::new();
    let lab = match rustix::process::geteuid().is_root() {
        true => lab.with_records_in(hostd.run_dir()),
        false => lab,
    };
    let driver = driver(&lab, hostd).await.with_memory(memory);
    let machine = bare_machine(&lab, MEMORY_MIB);
    Subject {
        lab,
        driver: Arc::new(driver),
        machine,
        command: bare_command,
    }
}

fn program() -> PathBuf {
    let named = std::env::var_os("FIRELANE_FIRECRACKER");
    named.expect("FIRELANE_FIRECRACKER names a program").into()
}

async fn driver(lab: &Lab, hostd: &Hostd) -> Firecracker {
    let place = Place {
        program: program(),
        jailing: Jailing::Hostd(hostd.socket()),
        jail_program: PathBuf::new(),
        run_base: lab.run_dir(),
    };
    Firecracker::find(place).await.expect("it can be used")
}

/// What the kernel says of an ordinary user's VMM while that user drives it, and whose a snapshot's files are.
#[test]
#[ignore = "needs a real Firecracker: FIRELANE_FIRECRACKER names it"]
fn an_ordinary_users_firecracker_is_confined_and_its_snapshot_is_the_users() {
    if !is_root("an_ordinary_users_firecracker_is_confined_and_its_snapshot_is_the_users") {
        return;
    }
    let lab = Lab::new();
    let hostd = Hostd::start(&lab, &[]);
    let (told, asked) = channel();
    let (go_on, waits) = channel();
    let its = &hostd;
    // Whoever waits is told of a failure by the end of its channel.
    std::thread::scope(move |scope| {
        scope.spawn(move || as_nobody(move || drive(its, told, waits)));
        look(asked.recv().expect("it boots"));
        go_on.send(()).expect("it waits");
    });
    hostd.wait_until_empty();
}

/// Boots, waits until the VMM was looked at, and makes a snapshot of it.
async fn drive(hostd: &Hostd, told: Sender<u32>, looked: Receiver<()>) {
    let subject = subject(hostd, MemoryFrom::File).await;
    let (vm, files) = template(&subject).await;
    open(&*vm).await.close().await;
    let controls = vm.controls().expect("it was told");
    assert_eq!(controls.lacking(), None);
    assert!(!controls.0.is_empty(), "hostd has told of some");
    told.send(vm.pid()).expect("it is heard");
    looked.recv().expect("it is confined");
    vm.snapshot().await.expect("it becomes a snapshot");
    for path in [&files.memory, &files.state] {
        let meta = fs::metadata(path).expect("it is there");
        assert_eq!((meta.uid(), meta.mode() & 0o777), (NOBODY, 0o444));
    }
    subject.lab.assert_empty();
}

/// A microVM that is to become a snapshot, and the files that it will be.
async fn template(subject: &Subject) -> (Box<dyn MicroVm>, SnapshotFiles) {
    let folder = subject.lab.path();
    let files = SnapshotFiles::new(folder.join("memory"), folder.join("state"));
    let machine = Machine {
        snapshot: Some(files.clone()),
        ..subject.named("nobodys")
    };
    let vm = subject.boot_machine(&machine).await.expect("it boots");
    (vm, files)
}

/// The memory of a snapshot that is not what it was.
#[derive(Debug)]
struct Changed;

impl CheckedMemory for Changed {
    fn read_at(&self, _: u64, _: &mut [u8]) -> Result<(), Refusal> {
        Err("this range has changed".into())
    }
}

/// Its pager may not kill another user's VMM, and ends it all the same.
#[test]
#[ignore = "needs a real Firecracker: FIRELANE_FIRECRACKER names it"]
fn an_ordinary_users_clone_whose_memory_does_not_verify_is_ended() {
    if !is_root("an_ordinary_users_clone_whose_memory_does_not_verify_is_ended") {
        return;
    }
    let lab = Lab::new();
    let hostd = Hostd::start(&lab, &[]);
    as_nobody(|| async {
        let subject = subject(&hostd, MemoryFrom::Userfault).await;
        let (vm, files) = template(&subject).await;
        vm.snapshot().await.expect("it becomes a snapshot");
        let files = SnapshotFiles {
            checked: Some(Arc::new(Changed)),
            ..files
        };
        let told = match subject.restore("clone", &files).await {
            Err(BootError::Load(error)) => chain(&*error),
            Err(error) => panic!("{error:?}"),
            // Its guest was on its way before it missed anything.
            Ok(mut vm) => {
                let death = timeout(PATIENCE, vm.died()).await.expect("it is ended");
                assert!(vm.snapshot_fault().is_some(), "{death}");
                vm.destroy().await.expect("it has ended");
                death.status
            }
        };
        assert!(told.contains("this range has changed"), "{told}");
        subject.lab.assert_empty();
    });
    hostd.wait_until_empty();
}

fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {}", chain(cause)),
        None => error.to_string(),
    }
}

fn look(pid: u32) {
    let controls = Controls::of(pid).expect("it runs");
    assert_eq!(controls.lacking(), None, "{controls:?}");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = |name: &str| {
        let found = status.lines().find_map(|line| line.strip_prefix(name));
        found.expect("the kernel tells it").trim().to_owned()
    };
    let nobody = NOBODY.to_string();
    let users = line("Uid:");
    assert!(users.split('\t').all(|user| user != nobody && user != "0"));
    assert_eq!(line("Groups:"), "");
    for set in ["CapEff:", "CapPrm:", "CapInh:", "CapAmb:"] {
        assert_eq!(line(set), "0000000000000000", "{set}");
    }
    assert_eq!(line("NoNewPrivs:"), "1");
    assert_eq!(line("Seccomp:"), "2");
    // Nothing of the host but the program.
    let root = fs::read_dir(format!("/proc/{pid}/root")).expect("its root");
    let found: BTreeSet<_> = root.flatten().map(|entry| entry.file_name()).collect();
    let program = program();
    let first = program.components().nth(1).expect("an absolute path");
    let expected = [OsStr::new("dev"), OsStr::new("vm"), first.as_os_str()];
    assert_eq!(found, expected.map(OsString::from).into());
}
