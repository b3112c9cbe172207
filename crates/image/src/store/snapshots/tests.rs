//! Snapshots of made-up files in a store of their own.

use super::*;

const KHZ: u64 = 2_300_000;
const MEMORY_CONTENT: &[u8] = b"memory";

fn origin(memory_mib: u32) -> SnapshotOrigin {
    SnapshotOrigin {
        cpu: "emulated".into(),
        initrd: "abcd.cpio".into(),
        kernel: "9876".into(),
        memory_mib,
        template: "base".into(),
        template_id: "1234".into(),
        vcpus: 1,
        vmm: "qemu".into(),
    }
}

fn draft(store: &Store, origin: &SnapshotOrigin) -> SnapshotDraft {
    match store.snapshot_or_draft(origin, KHZ, Memory::Whole).unwrap() {
        Found::Draft(draft) => *draft,
        Found::Snapshot(snapshot) => panic!("there is one: {snapshot:?}"),
    }
}

fn make(store: &Store, origin: &SnapshotOrigin) -> Verified<Snapshot> {
    let draft = draft(store, origin);
    fs::write(draft.memory(), MEMORY_CONTENT).unwrap();
    fs::write(draft.state(), "state").unwrap();
    draft.commit(KHZ).unwrap()
}

fn names(folder: &Path) -> usize {
    fs::read_dir(folder).unwrap().count()
}

#[test]
fn a_snapshot_is_found_by_all_that_it_depends_on() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    let made = make(&store, &origin(256));
    assert_eq!(fs::read(made.memory()).unwrap(), MEMORY_CONTENT);
    let found = store
        .snapshot(&origin(256), KHZ, Memory::Whole)
        .unwrap()
        .unwrap();
    assert_eq!(found.memory(), made.memory());
    let others = [
        SnapshotOrigin {
            template_id: "5678".into(),
            ..origin(256)
        },
        SnapshotOrigin {
            initrd: "ef.cpio".into(),
            ..origin(256)
        },
        SnapshotOrigin {
            vmm: "qemu, newer".into(),
            ..origin(256)
        },
        SnapshotOrigin {
            vcpus: 2,
            ..origin(256)
        },
        origin(512),
    ];
    for other in others {
        let found = store.snapshot(&other, KHZ, Memory::Whole).unwrap();
        assert!(found.is_none(), "{other:?}");
    }
}

#[test]
fn another_counter_makes_another_snapshot_but_a_measuring_error_does_not() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    make(&store, &origin(256));
    assert!(
        store
            .snapshot(&origin(256), KHZ + 500, Memory::Whole)
            .unwrap()
            .is_some()
    );
    assert!(
        store
            .snapshot(&origin(256), KHZ * 2, Memory::Whole)
            .unwrap()
            .is_none()
    );
}

#[test]
fn a_draft_that_is_dropped_leaves_nothing_and_lets_others_make_it() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    let half = draft(&store, &origin(256));
    fs::write(half.memory(), "half").unwrap();
    drop(half);
    assert_eq!(names(&root.path().join("staging")), 0);
    assert_eq!(names(&root.path().join("snapshots")), 0);
    make(&store, &origin(256));
}

#[test]
fn whoever_waits_gets_what_the_other_made() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    let first = draft(&store, &origin(256));
    fs::write(first.memory(), "").unwrap();
    fs::write(first.state(), "").unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            store
                .snapshot_or_draft(&origin(256), KHZ, Memory::Whole)
                .unwrap()
        });
        first.commit(KHZ).unwrap();
        assert!(matches!(waiting.join().unwrap(), Found::Snapshot(_)));
    });
}

#[test]
fn only_so_many_are_kept_and_none_of_a_template_that_is_gone() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    for memory_mib in 1..=6 {
        make(&store, &origin(memory_mib));
    }
    assert_eq!(names(&root.path().join("snapshots")), KEPT);
    assert!(
        store
            .snapshot(&origin(6), KHZ, Memory::Whole)
            .unwrap()
            .is_some()
    );
    assert!(
        store
            .snapshot(&origin(1), KHZ, Memory::Whole)
            .unwrap()
            .is_none()
    );
    store.keep_snapshots_of(&[]).unwrap();
    assert_eq!(names(&root.path().join("snapshots")), 0);
}

/// What the refusal of a changed snapshot says; it is in quarantine then, or gone, and another can be made.
fn refusal(change: impl FnOnce(&Store, &Verified<Snapshot>)) -> String {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    let snapshot = make(&store, &origin(256));
    change(&store, &snapshot);
    let look = store
        .look(&origin(256), KHZ, Memory::Whole, Timestamp::now())
        .unwrap();
    let Look::Refused(reason) = look else {
        panic!("it was taken");
    };
    let wanted = usize::from(reason.is_evidence());
    drop(draft(&store, &origin(256)));
    let kept = store.quarantined().unwrap();
    assert_eq!(kept.len(), wanted, "{kept:?}");
    let told = kept
        .iter()
        .all(|kept| kept.reason.ends_with(&reason.to_string()));
    assert!(told, "{kept:?}");
    assert_eq!(names(&root.path().join("snapshots")), 0);
    make(&store, &origin(256));
    assert!(
        store
            .snapshot(&origin(256), KHZ, Memory::Whole)
            .unwrap()
            .is_some()
    );
    reason.to_string()
}

#[test]
fn a_snapshot_that_is_not_as_it_was_sealed_is_put_aside_and_made_again() {
    fn check(change: impl FnOnce(&Store, &Verified<Snapshot>), expected: &str) {
        let reason = refusal(change);
        assert!(reason.contains(expected), "{reason}, not {expected}");
    }
    check(
        |_, snapshot| fs::write(snapshot.memory(), "memorx").unwrap(),
        "memory has changed at or after byte 0",
    );
    check(
        |_, snapshot| fs::write(snapshot.memory(), "mem").unwrap(),
        "memory is truncated: it has 3 of 6 bytes",
    );
    check(
        |_, snapshot| fs::write(snapshot.state(), "stat3").unwrap(),
        "state has changed",
    );
    check(
        |_, snapshot| fs::remove_file(snapshot.state()).unwrap(),
        "state is missing",
    );
    check(
        |store, snapshot| {
            let other = make(store, &origin(512));
            fs::rename(&snapshot.folder, snapshot.folder.with_extension("old")).unwrap();
            fs::rename(&other.folder, &snapshot.folder).unwrap();
            remove(&snapshot.folder.with_extension("old")).unwrap();
        },
        "it is the seal of snapshot",
    );
    check(
        |_, snapshot| {
            let seal = snapshot.folder.join(SEAL);
            let text = fs::read_to_string(&seal).unwrap();
            fs::write(&seal, text.replace("\"vcpus\":1", "\"vcpus\":2")).unwrap();
        },
        "its signature is not that of key",
    );
    check(
        |_, snapshot| fs::remove_file(snapshot.folder.join(SEAL)).unwrap(),
        "it is not signed",
    );
}

#[test]
fn a_snapshot_expires() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    make(&store, &origin(256));
    let later = Timestamp::now() + jiff::SignedDuration::from_hours(24 * 31);
    let look = store.look(&origin(256), KHZ, Memory::Whole, later).unwrap();
    assert!(matches!(look, Look::Refused(Refusal::Expired { .. })));
}

#[test]
fn a_snapshot_that_was_put_back_is_older_than_what_was_seen() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    let old = make(&store, &origin(256)).folder.clone();
    let copy = root.path().join("copy");
    fs::rename(&old, &copy).unwrap();
    make(&store, &origin(256));
    remove(&old).unwrap();
    fs::rename(&copy, &old).unwrap();
    let look = store
        .look(&origin(256), KHZ, Memory::Whole, Timestamp::now())
        .unwrap();
    let Look::Refused(Refusal::OlderEpoch { epoch, newest }) = look else {
        panic!("it was taken");
    };
    assert_eq!((epoch, newest), (1, 2));
}

#[test]
fn quarantine_is_bounded() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    for memory_mib in 1..=6 {
        let snapshot = make(&store, &origin(memory_mib));
        fs::write(snapshot.state(), "stat3").unwrap();
        drop(draft(&store, &origin(memory_mib)));
    }
    let kept = store.quarantined().unwrap();
    let kept: Vec<_> = kept
        .iter()
        .filter_map(|kept| kept.folder.file_name())
        .collect();
    assert_eq!(kept, ["000003", "000004", "000005", "000006"]);
}

#[test]
fn a_memory_that_is_verified_lazily_is_found_out_when_it_is_read() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    let made = make(&store, &origin(256));
    fs::write(made.memory(), "memorx").unwrap();
    let found = store.snapshot(&origin(256), KHZ, Memory::Whole);
    assert!(found.unwrap().is_none());
    let found = store.snapshot(&origin(256), KHZ, Memory::Lazily);
    let found = found.unwrap().expect("nothing was read yet");
    let ranges = found.ranges().expect("it is to be checked");
    assert!(!found.is_spoilt());
    ranges.read_at(0, &mut [0; 6]).unwrap_err();
    assert!(found.is_spoilt());
    store.discard_snapshot(&origin(256)).unwrap();
    let kept = store.quarantined().unwrap();
    assert_eq!(kept.len(), 1, "it is kept to be looked at");
    make(&store, &origin(256));
    // A snapshot that verifies and is of no use is only removed.
    store.discard_snapshot(&origin(256)).unwrap();
    assert_eq!(store.quarantined().unwrap().len(), 1);
}

#[test]
fn a_memory_that_was_verified_as_a_whole_has_no_ranges() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    let made = make(&store, &origin(256));
    // Another file with the same content: nothing is remembered of it.
    let copy = root.path().join("copy");
    fs::copy(made.memory(), &copy).unwrap();
    fs::rename(&copy, made.memory()).unwrap();
    let lazily = || {
        let found = store.snapshot(&origin(256), KHZ, Memory::Lazily);
        found.unwrap().unwrap()
    };
    let first = lazily();
    // What changes within a tick of the clock is not remembered.
    while let Some(ranges) = first.ranges() {
        ranges.finish().unwrap();
    }
    assert!(lazily().ranges().is_none());
}

#[test]
fn a_key_that_cannot_be_read_condemns_nothing() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    let made = make(&store, &origin(256));
    let signing = root.path().join("signing");
    let junk = signing.join("trusted/junk.pub");
    fs::write(&junk, "no key\n").unwrap();
    // It says nothing about the key beside it.
    let found = store.snapshot(&origin(256), KHZ, Memory::Whole).unwrap();
    assert_eq!(found.unwrap().memory(), made.memory());

    // If the right key cannot be found, the snapshot is not what is wrong.
    let (own, aside) = (signing.join("host.pub"), signing.join("aside"));
    fs::rename(&own, &aside).unwrap();
    let error = store.snapshot_or_draft(&origin(256), KHZ, Memory::Whole);
    let StoreError::Refused { reason, .. } = error.map(drop).unwrap_err() else {
        panic!("another error");
    };
    assert!(reason.is_of_the_host(), "{reason}");
    assert_eq!(store.quarantined().unwrap(), []);
    fs::rename(&aside, &own).unwrap();
    let found = store.snapshot(&origin(256), KHZ, Memory::Whole).unwrap();
    assert!(found.is_some());
}

#[test]
fn a_snapshot_that_somebody_made_meanwhile_is_not_discarded_for_the_one_before() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    let first = make(&store, &origin(256));
    let stale = identity(&store.snapshot_folder(&origin(256)));
    fs::write(first.memory(), "memorx").unwrap();
    let lock = store.snapshot_lock(&origin(256)).unwrap();
    let discarding = std::thread::spawn({
        let store = store.clone();
        move || store.discard_snapshot(&origin(256)).unwrap()
    });
    // It waits for the lock only after it has seen the first one.
    wait_for_waiters(root.path());
    let folder = store.snapshot_folder(&origin(256));
    fs::rename(&folder, root.path().join("old")).unwrap();
    fs::create_dir(&folder).unwrap();
    assert_ne!(identity(&folder), stale);
    drop(lock);
    discarding.join().unwrap();
    assert!(folder.exists(), "the second one stays");
}

/// Until somebody waits for a lock of this store: /proc/locks has a line with `->` for each that does.
fn wait_for_waiters(root: &Path) {
    let locks = root.join("locks");
    loop {
        let inodes: Vec<u64> = fs::read_dir(&locks)
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().ino())
            .collect();
        let table = fs::read_to_string("/proc/locks").unwrap();
        let waits = table.lines().filter(|line| line.contains("->"));
        let of_ours = |line: &str| {
            inodes
                .iter()
                .any(|inode| line.contains(&format!(":{inode} ")))
        };
        if waits.into_iter().any(of_ours) {
            return;
        }
        std::thread::yield_now();
    }
}
