//! What was changed in the store is not mapped: made again where it can be, told where it cannot.

#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use firelane_agent::workshop::{Workshop, new_id};
use firelane_image::Store;
use firelane_testkit::Lab;
use firelane_vmm::driver::Acceleration;
use firelane_vmm::qemu::{Qemu, default_program};
use firelane_vmm::timeline::Timeline;

/// Puts a copy with one bit changed in the place of a file, which is a link to the shared store's.
fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

fn snapshots(lab: &Lab) -> Vec<PathBuf> {
    let entries = fs::read_dir(lab.home().join("snapshots")).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

const RUN: [&str; 7] = [
    "run",
    "--local",
    "--template",
    "base",
    "--lang",
    "bash",
    "-c",
];

fn run(lab: &Lab) -> firelane_testkit::Ended {
    lab.firelane(&[&RUN[..], &["echo it runs"]].concat())
}

#[test]
fn a_changed_snapshot_is_put_aside_and_made_again() {
    let lab = Lab::new().with_own_store();
    let quarantine = lab.home().join("quarantine");
    if quarantine.exists() {
        fs::remove_dir_all(&quarantine).unwrap();
    }
    assert_eq!(run(&lab).code, 0);
    for snapshot in snapshots(&lab) {
        flip(&snapshot.join("memory"), 100 << 20);
    }
    let ended = run(&lab);
    assert_eq!((ended.code, ended.stdout.as_str()), (0, "it runs\n"));
    assert!(
        ended.stderr.contains("is refused, and is made again"),
        "{ended:?}"
    );
    let store = Store::open(lab.home()).unwrap();
    let kept = store.quarantined().unwrap();
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert!(
        kept[0]
            .reason
            .ends_with("memory has changed at or after byte 104857600"),
        "{kept:?}"
    );
    // Another one is in its place, which nobody remarks on.
    let ended = run(&lab);
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
}

/// What a service makes its clones with.
fn workshop(lab: &Lab, store: &Store) -> Workshop {
    let driver = Qemu {
        program: default_program(),
        jail_program: lab.bin().join("firelane"),
        run_base: lab.run_dir(),
        acceleration: Acceleration::Tcg,
        tsc_khz: firelane_sys::tsc::measure_khz(),
    };
    let runner = lab.bin().join("firelane-guest");
    Workshop::new(Arc::new(driver), store.clone(), runner)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_changes_under_a_service_is_noticed_at_the_next_restore() {
    let lab = Lab::new().with_own_store();
    let store = Store::open(lab.home()).unwrap();
    let workshop = workshop(&lab, &store);
    let prepared = workshop.prepare("base").await.unwrap();
    let refused_before = store.quarantined().unwrap().pop();
    flip(&prepared.snapshot.memory(), 100 << 20);
    let mut timeline = Timeline::start();
    let restored = workshop.restore(&prepared, &new_id(), &mut timeline).await;
    restored.unwrap().vm.destroy().await.unwrap();
    let refused = store.quarantined().unwrap().pop();
    assert_ne!(refused, refused_before);
    let again = workshop.prepare("base").await.unwrap();
    assert!(!Arc::ptr_eq(&prepared, &again));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_builds_a_template_again_that_was_changed() {
    let lab = Lab::new().with_own_store();
    let store = Store::open(lab.home()).unwrap();
    let workshop = workshop(&lab, &store);
    let prepared = workshop.prepare("base").await.unwrap();
    flip(&prepared.template.rootfs(), 5 << 20);
    let mut timeline = Timeline::start();
    // The same packages make the same template, so this clone is what was asked for.
    let restored = workshop.restore(&prepared, &new_id(), &mut timeline).await;
    restored.unwrap().vm.destroy().await.unwrap();
    assert!(store.get("base").unwrap().verified().is_ok());
}

#[test]
fn a_changed_template_that_cannot_be_built_again_starts_no_vmm() {
    let lab = Lab::new().with_own_store();
    let fails_to_start = |lab: &Lab| {
        let mut command = lab.command(&[&RUN[..], &["echo it runs"]].concat());
        command
            .env("FIRELANE_QEMU", "/bin/false")
            // Nobody is there: RFC 863's port, of which no service is left.
            .env("FIRELANE_DEBIAN_MIRROR", "http://127.0.0.1:9/");
        firelane_testkit::Running::start(command, b"").end()
    };
    let started = fails_to_start(&lab);
    assert_ne!(started.code, 0, "{started:?}");
    assert!(started.stderr.contains("the VMM ended"), "{started:?}");

    let store = Store::open(lab.home()).unwrap();
    let template = store.get("base").unwrap();
    let rootfs = template.location(&template.manifest().rootfs);
    flip(&rootfs, 5 << 20);
    let refused = fails_to_start(&lab);
    assert_ne!(refused.code, 0, "{refused:?}");
    assert!(refused.stderr.contains("rootfs has changed"), "{refused:?}");
    assert!(
        refused.stderr.contains("cannot get the packages"),
        "{refused:?}"
    );
    assert!(!refused.stderr.contains("the VMM ended"), "{refused:?}");
}

#[test]
fn a_store_without_signatures_is_not_believed() {
    let lab = Lab::new().with_own_store();
    fs::remove_dir_all(lab.home().join("seals")).unwrap();
    let store = Store::open(lab.home()).unwrap();
    let error = store.get("base").unwrap().verified().unwrap_err();
    assert_eq!(error.to_string(), "template \"base\" is refused");
    assert!(error.remedy().unwrap().contains("template build base"));
}
