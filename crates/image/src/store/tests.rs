//! The store's behaviour with made-up blobs.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use firelane_guest_proto::Tier;

use super::manifest::{Kernel, Manifest, SCHEMA};
use super::{KernelFiles, Store, StoreError, Template, Verification};
use crate::kernel::KernelSource;
use crate::recipe::debian::Package;

fn store() -> (tempfile::TempDir, Store) {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    (root, store)
}

fn kernel(store: &Store) -> Kernel {
    let staging = store.staging().unwrap();
    let (vmlinux, modules) = (
        staging.path().join("vmlinux"),
        staging.path().join("modules"),
    );
    fs::write(&vmlinux, "kernel").unwrap();
    fs::write(&modules, "modules").unwrap();
    let package = Package {
        name: "linux".to_owned(),
        version: "1".to_owned(),
        sha256: "0".repeat(64),
    };
    let files = KernelFiles {
        version: "6.1".to_owned(),
        package,
        vmlinux: &vmlinux,
        modules: &modules,
    };
    store.add_kernel(KernelSource::Debian, files).unwrap()
}

fn add(store: &Store, name: &str, rootfs: &str) -> Template {
    let kernel = store
        .kernel(KernelSource::Debian)
        .unwrap()
        .unwrap_or_else(|| kernel(store));
    let staging = store.staging().unwrap();
    let image = staging.path().join("rootfs");
    fs::write(&image, rootfs).unwrap();
    store
        .add(&image, |rootfs| {
            let mut manifest = Manifest {
                schema: SCHEMA,
                name: name.to_owned(),
                description: String::new(),
                id: String::new(),
                definition: "d".to_owned(),
                created: "2026-01-01T00:00:00Z".to_owned(),
                rootfs,
                kernel,
                packages: Vec::new(),
                wheels: Vec::new(),
                env: BTreeMap::new(),
                memory_mib: 256,
                seccomp: Tier::default(),
                network: None,
                warmup: BTreeMap::new(),
            };
            manifest.id = manifest.content_id();
            manifest
        })
        .unwrap()
}

fn files(folder: &Path) -> usize {
    fs::read_dir(folder).unwrap().count()
}

#[test]
fn a_template_reads_back_as_it_was_added() {
    let (_root, store) = store();
    let added = add(&store, "one", "files");
    let found = store.get("one").unwrap();
    assert_eq!(found.manifest(), added.manifest());
    let found = found.verified().unwrap();
    assert_eq!(fs::read_to_string(found.rootfs()).unwrap(), "files");
    assert_eq!(fs::read_to_string(found.vmlinux()).unwrap(), "kernel");
    assert_eq!(fs::read_to_string(found.modules()).unwrap(), "modules");
    assert_eq!(
        found.rootfs().metadata().unwrap().permissions().mode() & 0o777,
        0o444
    );
    assert_eq!(files(&store.root().join("staging")), 0);
}

#[test]
fn equal_content_has_equal_ids_and_is_kept_once() {
    let (_root, store) = store();
    let (one, two, other) = (
        add(&store, "one", "same"),
        add(&store, "two", "same"),
        add(&store, "three", "other"),
    );
    assert_eq!(one.manifest().id, two.manifest().id);
    assert_ne!(one.manifest().id, other.manifest().id);
    assert_eq!(files(&store.root().join("blobs")), 4);
    let names: Vec<_> = store
        .list()
        .unwrap()
        .into_iter()
        .map(|template| template.manifest().name.clone())
        .collect();
    assert_eq!(names, ["one", "three", "two"]);
}

#[test]
fn removing_frees_only_what_nothing_else_needs() {
    let (_root, store) = store();
    add(&store, "one", "same");
    add(&store, "two", "same");
    assert_eq!(store.remove("one").unwrap(), 0);
    store.verify(&store.get("two").unwrap()).unwrap();
    let freed = store.remove("two").unwrap();
    assert_eq!(
        freed,
        ["same", "kernel", "modules"]
            .iter()
            .map(|text| text.len() as u64)
            .sum::<u64>()
    );
    assert_eq!(files(&store.root().join("blobs")), 0);
    assert!(store.kernel(KernelSource::Debian).unwrap().is_none());
}

#[test]
fn the_small_kernel_is_kept_beside_debians_and_replaces_one_of_another_recipe() {
    fn small(store: &Store) -> Kernel {
        let staging = store.staging().unwrap();
        let (vmlinux, modules) = (
            staging.path().join("vmlinux"),
            staging.path().join("modules"),
        );
        fs::write(&vmlinux, "small kernel").unwrap();
        fs::write(&modules, "").unwrap();
        let package = Package {
            name: "linux-source-6.1".to_owned(),
            version: "1".to_owned(),
            sha256: "0".repeat(64),
        };
        let files = KernelFiles {
            version: "6.1-firelane".to_owned(),
            package,
            vmlinux: &vmlinux,
            modules: &modules,
        };
        store.add_kernel(KernelSource::Small, files).unwrap()
    }
    let (_root, store) = store();
    let debian = add(&store, "one", "x").manifest().kernel.clone();
    let kernels = store.root().join("kernels");
    let old = kernels.join("bookworm-small-0.json");
    fs::copy(kernels.join("bookworm.json"), &old).unwrap();
    assert!(store.kernel(KernelSource::Small).unwrap().is_none());

    let added = small(&store);
    assert!(!old.exists());
    store.collect().unwrap();
    assert_eq!(store.kernel(KernelSource::Small).unwrap(), Some(added));
    assert_eq!(store.kernel(KernelSource::Debian).unwrap(), Some(debian));
    store.remove("one").unwrap();
    assert_eq!(
        (files(&kernels), files(&store.root().join("blobs"))),
        (0, 0)
    );
}

#[test]
fn an_unknown_template_is_answered_with_the_known_ones() {
    let (_root, store) = store();
    add(&store, "one", "x");
    let error = store.get("nope").unwrap_err();
    assert_eq!(
        error.to_string(),
        "no template \"nope\" in the store (built: one)"
    );
    assert!(error.remedy().unwrap().contains("template build nope"));
    assert!(matches!(
        store.remove("nope"),
        Err(StoreError::NotFound { .. })
    ));
}

#[test]
fn names_cannot_leave_the_store() {
    let (_root, store) = store();
    for name in [
        "",
        "..",
        "../x",
        "a/b",
        ".hidden",
        "A",
        "a b",
        &"a".repeat(65),
    ] {
        assert!(
            matches!(store.get(name), Err(StoreError::BadName { .. })),
            "{name}"
        );
    }
}

#[test]
fn a_template_being_built_is_not_removed() {
    let (_root, store) = store();
    add(&store, "one", "x");
    let lock = store.try_build_lock("one").unwrap().unwrap();
    assert!(store.try_build_lock("one").unwrap().is_none());
    assert!(matches!(store.remove("one"), Err(StoreError::Busy { .. })));
    drop(lock);
    store.remove("one").unwrap();
}

#[test]
fn a_changed_or_missing_blob_is_found() {
    fn check(change: impl Fn(&Path), at_get: bool, expected: &Verification) {
        let (_root, store) = store();
        let template = add(&store, "one", "files");
        change(&template.location(&template.manifest().rootfs));
        assert_eq!(store.get("one").is_err(), at_get);
        let Err(StoreError::Corrupt { state, hash, .. }) = store.verify(&template) else {
            panic!("not found")
        };
        assert_eq!(
            (&state, &hash),
            (expected, &template.manifest().rootfs.hash)
        );
    }
    let rewrite = |content: &'static str| {
        move |path: &Path| {
            fs::remove_file(path).unwrap();
            fs::write(path, content).unwrap();
        }
    };
    check(rewrite("filez"), false, &Verification::Damaged);
    check(rewrite("longer than before"), true, &Verification::Damaged);
    check(
        |path| fs::remove_file(path).unwrap(),
        true,
        &Verification::Missing,
    );
}

#[test]
fn manifests_of_another_schema_or_with_unknown_fields_are_refused() {
    let (_root, store) = store();
    add(&store, "one", "x");
    let path = store.root().join("templates/one.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("\"schema\": 1", "\"schema\": 99")).unwrap();
    assert!(matches!(
        store.get("one"),
        Err(StoreError::Schema { schema: 99, .. })
    ));
    fs::write(&path, text.replace("\"name\"", "\"extra\": 1, \"name\"")).unwrap();
    assert!(matches!(
        store.get("one"),
        Err(StoreError::BadManifest { .. })
    ));
    fs::write(&path, &text[..text.len() / 2]).unwrap();
    assert!(matches!(
        store.get("one"),
        Err(StoreError::BadManifest { .. })
    ));
}

#[test]
fn the_initrd_is_made_once_for_each_runner() {
    let (_root, store) = store();
    let mut template = add(&store, "one", "x").verified().unwrap();
    let runner = store.root().join("runner");
    fs::write(&runner, "one").unwrap();
    let first = template.initrd(&runner).unwrap();
    assert_eq!(template.initrd(&runner).unwrap(), first);
    let bytes = fs::read(&first).unwrap();
    assert!(bytes.starts_with(b"070701"));
    assert!(bytes.ends_with(b"modules"));
    assert_eq!((bytes.len() - "modules".len()) % 512, 0);
    // One that somebody has changed is made again.
    fs::remove_file(&first).unwrap();
    fs::write(&first, "other").unwrap();
    assert_eq!(template.initrd(&runner).unwrap(), first);
    assert_eq!(fs::read(&first).unwrap(), bytes);
    fs::write(&runner, "two").unwrap();
    assert_ne!(template.initrd(&runner).unwrap(), first);
    assert_eq!(files(&store.root().join("initrds")), 2);
    store.remove("one").unwrap();
    assert_eq!(files(&store.root().join("initrds")), 0);
}

#[test]
fn opening_sweeps_what_a_killed_build_left() {
    let (root, store) = store();
    let live = store.staging().unwrap();
    let stale = root.path().join("staging/1-0");
    fs::create_dir_all(stale.join("tree")).unwrap();
    Store::open(root.path()).unwrap();
    assert!(!stale.exists());
    assert!(live.path().exists());
}

/// Refusals of a template, by what was done to the store.
#[test]
fn a_template_that_is_not_as_it_was_sealed_is_refused() {
    fn check(change: impl FnOnce(&Store, &Path), expected: &str) {
        let (_root, store) = store();
        let template = add(&store, "one", "files");
        add(&store, "other", "more files");
        let rootfs = template.location(&template.manifest().rootfs);
        template.verified().unwrap();
        change(&store, &rootfs);
        let Err(error) = store.get("one").unwrap().verified() else {
            panic!("it was taken: {expected}");
        };
        let StoreError::Refused { reason, .. } = &error else {
            panic!("{error}");
        };
        assert!(reason.to_string().contains(expected), "{reason}");
        assert!(
            error
                .remedy()
                .unwrap()
                .contains("template build one --refresh")
        );
    }
    check(
        |_, rootfs| {
            fs::remove_file(rootfs).unwrap();
            fs::write(rootfs, "filez").unwrap();
        },
        "rootfs has changed",
    );
    check(
        |store, _| fs::remove_dir_all(store.root().join("seals")).unwrap(),
        "it is not signed",
    );
    check(
        |store, _| {
            let path = store.root().join("templates/one.json");
            let text = fs::read_to_string(&path).unwrap();
            fs::write(
                &path,
                text.replace("\"memory_mib\": 256", "\"memory_mib\": 512"),
            )
            .unwrap();
        },
        "it is not signed",
    );
    check(
        |store, _| {
            fs::copy(
                store.root().join("templates/other.json"),
                store.root().join("templates/one.json"),
            )
            .unwrap();
        },
        "it is the seal of template other, not of template one",
    );
    check(
        |store, _| fs::remove_file(store.root().join("signing/host.pub")).unwrap(),
        "unknown key",
    );
}

#[test]
fn a_template_that_was_put_back_is_older_than_what_was_seen() {
    let (_root, store) = store();
    add(&store, "one", "with a hole");
    let (manifest, seals) = (
        store.root().join("templates/one.json"),
        store.root().join("seals"),
    );
    let copy = tempfile::tempdir().unwrap();
    fs::copy(&manifest, copy.path().join("manifest")).unwrap();
    for entry in fs::read_dir(&seals).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    add(&store, "one", "mended");
    store.get("one").unwrap().verified().unwrap();
    for entry in fs::read_dir(copy.path()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), seals.join(entry.file_name())).unwrap();
    }
    fs::copy(copy.path().join("manifest"), &manifest).unwrap();
    let error = store.get("one").unwrap().verified().unwrap_err();
    let StoreError::Refused { reason, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(
        reason.to_string(),
        "its epoch 1 is older than 2, which was seen before"
    );
}

#[test]
fn a_template_expires() {
    let (_root, store) = store();
    let template = add(&store, "one", "files");
    let now = jiff::Timestamp::now();
    let days = |days: i64| now + jiff::SignedDuration::from_hours(24 * days);
    assert!(template.verified_at(days(364)).unwrap().is_unchanged(now));
    assert!(!template.verified_at(now).unwrap().is_unchanged(days(366)));
    let error = template.verified_at(days(366)).unwrap_err();
    let StoreError::Refused { reason, .. } = &error else {
        panic!("{error}");
    };
    assert!(reason.to_string().starts_with("it expired at "), "{reason}");
}

#[test]
fn a_kernel_that_was_changed_is_not_taken_into_the_next_template() {
    let (_root, store) = store();
    let kernel = kernel(&store);
    assert_eq!(
        store.kernel(KernelSource::Debian).unwrap(),
        Some(kernel.clone())
    );
    let path = store.root().join("blobs").join(&kernel.vmlinux.hash);
    fs::remove_file(&path).unwrap();
    fs::write(&path, "Kernel").unwrap();
    assert_eq!(store.kernel(KernelSource::Debian).unwrap(), None);
}

#[test]
fn seals_go_with_what_they_are_of() {
    let (_root, store) = store();
    add(&store, "one", "x");
    add(&store, "two", "y");
    // Two templates and their kernel, each with a signature.
    assert_eq!(files(&store.root().join("seals")), 6);
    store.remove("one").unwrap();
    assert_eq!(files(&store.root().join("seals")), 4);
    store.remove("two").unwrap();
    assert_eq!(files(&store.root().join("seals")), 0);
}

#[test]
fn what_was_exported_is_a_store_in_which_that_template_verifies_and_nothing_else_is() {
    let (_root, store) = store();
    add(&store, "mine", "root");
    add(&store, "other", "another root");
    let there = tempfile::tempdir().unwrap();
    store.export("mine", there.path()).unwrap();
    assert_eq!(files(&there.path().join("blobs")), 3);
    assert_eq!(files(&there.path().join("signing/trusted")), 1);
    assert!(!there.path().join("signing/host.key").exists());

    let other = Store::open(there.path()).unwrap();
    let template = other.get("mine").unwrap().verified().unwrap();
    assert_eq!(fs::read(template.rootfs()).unwrap(), b"root");
    assert!(other.kernel(KernelSource::Debian).unwrap().is_some());
    assert!(matches!(
        other.get("other"),
        Err(StoreError::NotFound { .. })
    ));
}

#[test]
fn what_does_not_verify_here_is_not_exported() {
    let (_root, store) = store();
    let template = add(&store, "mine", "root");
    let rootfs = template.location(&template.manifest().rootfs);
    fs::remove_file(&rootfs).unwrap();
    fs::write(&rootfs, "toor").unwrap();
    let there = tempfile::tempdir().unwrap();
    let refused = store.export("mine", there.path()).unwrap_err().to_string();
    assert!(refused.contains("mine"), "{refused}");
    assert_eq!(files(there.path()), 0);
}
