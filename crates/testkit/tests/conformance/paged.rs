//! Guests whose memory is handed out as they miss it: a VMM that lies about it, a snapshot that is not what it was, and
//! a guest that is waiting when either is found out. Each is told by a typed error, and nothing is left.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use firelane_testkit::conformance::Subject;
use firelane_vmm::driver::{BootError, MicroVm, Refusal, SnapshotFiles};
use firelane_vmm::firecracker::{MemoryFrom, PagerError};
use firelane_vmm::memory::CheckedMemory;
use tokio::time::timeout;

use crate::faults::snapshot_in;
use crate::legs::{from, paged};

/// How long something that must happen may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a boot may take where its VMM never does what it should.
const LIMIT: Duration = Duration::from_secs(5);
/// What is handed out at once, in bytes.
const BLOCK: u64 = 64 << 10;
/// Where the stand-in's guest has what it remembers.
const GUEST_AT: u64 = 1 << 20;

/// A memory file of which some offsets are refused, and others waited for.
#[derive(Debug)]
struct Guarded {
    file: fs::File,
    refused: Option<u64>,
    waits: Option<u64>,
    panics: bool,
    open: Mutex<bool>,
    opened: Condvar,
    read: Mutex<BTreeSet<u64>>,
}

impl Guarded {
    fn new(files: &SnapshotFiles) -> Guarded {
        Guarded {
            file: fs::File::open(&files.memory).expect("the snapshot is there"),
            refused: None,
            waits: None,
            panics: false,
            open: Mutex::new(false),
            opened: Condvar::new(),
            read: Mutex::default(),
        }
    }

    fn open(&self) {
        *self.open.lock().expect("nobody panics with it") = true;
        self.opened.notify_all();
    }
}

impl CheckedMemory for Guarded {
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> Result<(), Refusal> {
        assert!(!self.panics, "as it was told to");
        if self.waits == Some(offset) {
            let open = self.open.lock().expect("nobody panics with it");
            let open = self.opened.wait_while(open, |open| !*open);
            drop(open.expect("nobody panics with it"));
        }
        let asked = offset..offset + bytes.len() as u64;
        if self.refused.is_some_and(|refused| asked.contains(&refused)) {
            return Err("this range has changed".into());
        }
        self.read
            .lock()
            .expect("nobody panics with it")
            .insert(offset);
        Ok(self.file.read_exact_at(bytes, offset)?)
    }
}

fn checked(files: &SnapshotFiles, guarded: &Arc<Guarded>) -> SnapshotFiles {
    SnapshotFiles {
        checked: Some(Arc::clone(guarded) as Arc<dyn CheckedMemory>),
        ..files.clone()
    }
}

/// The pager's error in that of a restore.
fn pager_error(error: &BootError) -> &PagerError {
    let BootError::Load(refusal) = error else {
        panic!("{error:?}");
    };
    let refusal = refusal.downcast_ref::<Arc<PagerError>>();
    refusal.unwrap_or_else(|| panic!("{error:?}"))
}

fn chain(error: &dyn Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {}", chain(cause)),
        None => error.to_string(),
    }
}

async fn restored(subject: &Subject, files: &SnapshotFiles) -> Result<Box<dyn MicroVm>, BootError> {
    subject.restore("paged", files).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vmm_that_lies_about_its_memory_is_ended_and_told() {
    type Fits = fn(&PagerError) -> bool;
    let lies: [(&str, Fits); 7] = [
        ("hangs", |error| matches!(error, PagerError::Without)),
        ("garbage", |error| matches!(error, PagerError::Malformed(_))),
        ("half", |error| matches!(error, PagerError::Malformed(_))),
        ("mute", |error| matches!(error, PagerError::NoDescriptor)),
        ("wrong", |error| matches!(error, PagerError::Descriptor(_))),
        ("beyond", |error| matches!(error, PagerError::Layout(_))),
        ("outside", |error| {
            matches!(error, PagerError::Outside { .. })
        }),
    ];
    for (kind, fits) in lies {
        let subject = paged(&format!("fake-firecracker-{kind}-memory")).await;
        let files = snapshot_in(&subject).await;
        let error = restored(&subject, &files).await.err();
        let error = error.unwrap_or_else(|| panic!("it was restored though its VMM is {kind}"));
        assert!(fits(pager_error(&error)), "{kind}: {error:?}");
        subject.lab.assert_empty();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vmm_that_dies_or_never_hands_over_its_memory_is_not_waited_for() {
    for (kind, point) in [("dies", "memory"), ("hangs", "load")] {
        let mut subject = paged(&format!("fake-firecracker-{kind}-{point}")).await;
        let files = snapshot_in(&subject).await;
        subject.machine.boot_timeout = LIMIT;
        match (kind, restored(&subject, &files).await.err()) {
            ("dies", Some(BootError::Died(_))) => {}
            ("hangs", Some(BootError::Load(_))) => {}
            (_, error) => panic!("{kind}: {error:?}"),
        }
        subject.lab.assert_empty();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_that_does_not_verify_is_never_handed_out() {
    let subject = paged("fake-firecracker").await;
    let files = snapshot_in(&subject).await;
    let guarded = Guarded {
        refused: Some(GUEST_AT + 7),
        ..Guarded::new(&files)
    };
    let error = restored(&subject, &checked(&files, &Arc::new(guarded))).await;
    let error = error.err().expect("the guest's page is not what it was");
    assert!(
        matches!(pager_error(&error), PagerError::Snapshot { offset, .. } if *offset == GUEST_AT),
        "{error:?}"
    );
    assert!(
        chain(&error).contains("this range has changed"),
        "{}",
        chain(&error)
    );
    subject.lab.assert_empty();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_memory_file_that_is_cut_short_is_told() {
    let subject = paged("fake-firecracker").await;
    let files = snapshot_in(&subject).await;
    // Only root may write to it, and nobody would.
    let cut = subject.lab.path().join("cut");
    fs::copy(&files.memory, &cut).expect("our own folder");
    let file = fs::File::options().write(true).open(&cut);
    let file = file.expect("our own file");
    file.set_len(GUEST_AT).expect("our own file");
    let files = SnapshotFiles::new(cut, files.state);
    let error = restored(&subject, &files).await.err().expect("it is cut");
    assert!(
        matches!(pager_error(&error), PagerError::Snapshot { .. }),
        "{error:?}"
    );
    subject.lab.assert_empty();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_found_while_the_guest_runs_ends_it_and_blames_the_snapshot() {
    let subject = paged("fake-firecracker").await;
    let files = snapshot_in(&subject).await;
    // A clone that missed its own page first and another one later.
    let later = 40 * BLOCK;
    let known = restored(&subject, &files).await.expect("it is sound");
    known.destroy().await.expect("it ends");
    let set = files.memory.with_extension("set");
    let record = fs::read_to_string(&set).expect("what it missed is kept");
    assert!(record.contains("\"blocks\":[16]"), "{record}");
    fs::write(&set, record.replace("[16]", "[16,40]")).expect("our own file");
    let guarded = Arc::new(Guarded {
        refused: Some(later),
        waits: Some(later),
        ..Guarded::new(&files)
    });
    let vm = restored(&subject, &checked(&files, &guarded)).await;
    let mut vm = vm.expect("what it needs is sound");
    assert!(vm.snapshot_fault().is_none());
    guarded.open();
    let death = timeout(PATIENCE, vm.died()).await.expect("it is ended");
    assert!(death.status.contains("this range has changed"), "{death}");
    assert!(vm.snapshot_fault().is_some());
    vm.destroy().await.expect("it ends");
    subject.lab.assert_empty();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_does_not_wait_for_a_pager_that_has_failed() {
    let subject = paged("fake-firecracker").await;
    let files = snapshot_in(&subject).await;
    let guarded = Guarded {
        panics: true,
        ..Guarded::new(&files)
    };
    let error = restored(&subject, &checked(&files, &Arc::new(guarded))).await;
    let error = error.err().expect("nobody hands out its memory");
    assert!(
        matches!(pager_error(&error), PagerError::Panicked),
        "{error:?}"
    );
    subject.lab.assert_empty();
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_that_is_checked_as_it_is_handed_out_is_never_mapped() {
    let subject = from("fake-firecracker", MemoryFrom::File).await;
    let files = snapshot_in(&subject).await;
    let files = checked(&files, &Arc::new(Guarded::new(&files)));
    let error = restored(&subject, &files)
        .await
        .err()
        .expect("it would be mapped");
    assert!(matches!(error, BootError::Step { .. }), "{error:?}");
    subject.lab.assert_empty();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_clones_missed_is_handed_out_before_it_is_missed() {
    let subject = paged("fake-firecracker").await;
    let files = snapshot_in(&subject).await;
    let first = restored(&subject, &files).await.expect("it is sound");
    first.destroy().await.expect("it ends");
    let set = files.memory.with_extension("set");
    let record = fs::read_to_string(&set).expect("what it missed is kept");
    fs::write(&set, record.replace("[16]", "[5,3,16]")).expect("our own file");
    let guarded = Arc::new(Guarded::new(&files));
    let vm = restored(&subject, &checked(&files, &guarded)).await;
    let vm = vm.expect("it is sound");
    timeout(PATIENCE, async {
        loop {
            let read = guarded.read.lock().expect("nobody panics with it").clone();
            if read == BTreeSet::from([3 * BLOCK, 5 * BLOCK, 16 * BLOCK]) {
                return;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("it is handed out");
    assert_eq!(subject.count(&*vm).await, 1);
    vm.destroy().await.expect("it ends");
    // A record of places that are not in the file is not used, and made anew.
    let beyond = (u64::from(subject.machine.memory_mib) << 20) / BLOCK;
    fs::write(&set, record.replace("[16]", &format!("[{beyond}]"))).expect("our own file");
    let vm = restored(&subject, &files).await.expect("it is sound");
    assert_eq!(subject.count(&*vm).await, 1);
    vm.destroy().await.expect("it ends");
    let record = fs::read_to_string(&set).expect("it is made anew");
    assert!(record.contains("\"blocks\":[16]"), "{record}");
    subject.lab.assert_empty();
}
