//! Snapshots of the store whose memory is verified as it is handed out: used at once, mapped once all of it is known,
//! refused where it is not what was sealed.

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::time::Duration;

use firelane_agent::clone;
use firelane_agent::snapshot::files;
use firelane_image::signing::Verified;
use firelane_image::{Found, Memory, Snapshot, SnapshotOrigin, Store};
use firelane_testkit::conformance::Subject;
use firelane_vmm::driver::{Machine, SnapshotFiles};
use firelane_vmm::firecracker::MemoryFrom;
use firelane_vmm::timeline::Timeline;
use tokio::time::timeout;

use crate::legs::from;

/// How long something that must happen may take.
const PATIENCE: Duration = Duration::from_secs(60);
const KHZ: u64 = 2_000_000;
/// Where the stand-in's guest has what it remembers.
const GUEST_AT: u64 = 1 << 20;

fn origin() -> SnapshotOrigin {
    SnapshotOrigin {
        cpu: "any".into(),
        initrd: String::new(),
        kernel: "bare".into(),
        memory_mib: 128,
        template: "bare".into(),
        template_id: "1".into(),
        vcpus: 1,
        vmm: "fake".into(),
    }
}

/// A snapshot of the store that was not read since it was sealed, as after a boot of the host.
async fn sealed(subject: &Subject, store: &Store) {
    let found = store.snapshot_or_draft(&origin(), KHZ, Memory::Whole);
    let Ok(Found::Draft(draft)) = found else {
        panic!("{found:?}");
    };
    let machine = Machine {
        snapshot: Some(SnapshotFiles::new(draft.memory(), draft.state())),
        ..subject.named("template")
    };
    let vm = subject.boot_machine(&machine).await.expect("it boots");
    vm.snapshot().await.expect("it can be saved");
    let made = draft.commit(KHZ).expect("it can be sealed");
    // Another file with the same content: nothing is remembered of it.
    let copy = made.memory().with_extension("copy");
    fs::copy(made.memory(), &copy).expect("our own folder");
    fs::rename(&copy, made.memory()).expect("our own folder");
}

fn lazily(store: &Store) -> Verified<Snapshot> {
    let found = store.snapshot(&origin(), KHZ, Memory::Lazily);
    found.expect("the store is ours").expect("it is there")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_memory_is_handed_out_at_once_and_mapped_once_all_of_it_is_verified() {
    let subject = from("fake-firecracker", MemoryFrom::Either).await;
    let store = Store::open(&subject.lab.path().join("store")).expect("our own folder");
    sealed(&subject, &store).await;
    let snapshot = lazily(&store);
    assert!(snapshot.ranges().is_some(), "nothing of it was read yet");
    let mut handed_out = 0;
    let mapped = async {
        loop {
            let files = files(&snapshot);
            let machine = subject.named("clone");
            let mut timeline = Timeline::start();
            let restored = clone::restore(&*subject.driver, &machine, None, &files, &mut timeline);
            let ready = restored.await.expect("it verifies");
            drop(ready.session);
            assert_eq!(subject.count(&*ready.vm).await, 1);
            ready.vm.destroy().await.expect("it ends");
            match files.checked {
                Some(_) => handed_out += 1,
                None => return,
            }
        }
    };
    timeout(PATIENCE, mapped).await.expect("all is verified");
    assert!(handed_out > 0);
    assert!(lazily(&store).ranges().is_none(), "it is remembered");
    subject.lab.assert_empty();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_memory_with_another_byte_is_refused_put_aside_and_made_again() {
    let subject = from("fake-firecracker", MemoryFrom::Either).await;
    let store = Store::open(&subject.lab.path().join("store")).expect("our own folder");
    sealed(&subject, &store).await;
    let memory = lazily(&store).memory();
    fs::set_permissions(&memory, fs::Permissions::from_mode(0o600)).expect("our own file");
    let file = fs::File::options().write(true).open(&memory);
    let file = file.expect("our own file");
    file.write_all_at(b"x", GUEST_AT + 1).expect("our own file");
    let snapshot = lazily(&store);
    let machine = subject.named("clone");
    let mut timeline = Timeline::start();
    let files = files(&snapshot);
    let restored = clone::restore(&*subject.driver, &machine, None, &files, &mut timeline);
    let error = restored.await.err().expect("its memory was changed");
    assert!(error.blames_snapshot(), "{error:?}");
    assert!(snapshot.is_spoilt());
    store
        .discard_snapshot(&origin())
        .expect("the store is ours");
    let kept = store.quarantined().expect("the store is ours");
    assert_eq!(kept.len(), 1);
    sealed(&subject, &store).await;
    assert!(!lazily(&store).is_spoilt());
    subject.lab.assert_empty();
}
