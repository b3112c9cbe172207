//! Builds the real `base` template, twice, from Debian's packages.
//!
//! Needs mmdebstrap, erofs-utils and a Debian mirror. `FIRELANE_TEST_CACHE` names a folder in which downloads are kept between runs.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};

use firelane_image::{Definition, Options, Progress, Silent, Step, Store, Template, build};

/// Remembers the steps of a build.
#[derive(Default)]
struct Steps(RefCell<Vec<Step>>);

impl Progress for Steps {
    fn step(&self, step: Step) {
        self.0.borrow_mut().push(step);
    }

    fn message(&self, _: &str) {}
}

fn cache(scratch: &Path) -> PathBuf {
    std::env::var_os("FIRELANE_TEST_CACHE").map_or_else(|| scratch.join("cache"), PathBuf::from)
}

fn build_base(store: &Store, cache: &Path, progress: &dyn Progress) -> Template {
    let options = Options {
        cache: Some(cache.to_owned()),
        ..Options::default()
    };
    build(
        store,
        &Definition::builtin("base").expect("base is built in"),
        &options,
        progress,
    )
    .unwrap_or_else(|error| panic!("{error:?}\nremedy: {:?}", error.remedy()))
}

#[test]
fn base_builds_the_same_twice_and_only_once_for_two_at_a_time() {
    let scratch = tempfile::tempdir().unwrap();
    let cache = cache(scratch.path());
    // The length of the path, too, must leave no trace in the image.
    let (first, second) = (
        scratch.path().join("a"),
        scratch.path().join("another-folder"),
    );
    let (first, second) = (Store::open(&first).unwrap(), Store::open(&second).unwrap());

    // Two builds of one template at a time: one works, the other takes what the first made.
    let step_counts: Vec<usize> = std::thread::scope(|scope| {
        let builder = || {
            let steps = Steps::default();
            build_base(&first, &cache, &steps);
            steps.0.into_inner().len()
        };
        let threads = [scope.spawn(builder), scope.spawn(builder)];
        threads.map(|thread| thread.join().unwrap()).to_vec()
    });
    assert_eq!(
        step_counts.iter().sum::<usize>(),
        Step::ALL.len() + 1,
        "{step_counts:?}"
    );

    let one = first.get("base").unwrap();
    let two = build_base(&second, &cache, &Silent);
    assert_eq!(one.manifest().rootfs, two.manifest().rootfs);
    assert_eq!(one.manifest().kernel, two.manifest().kernel);
    assert_eq!(one.manifest().packages, two.manifest().packages);
    assert_eq!(one.manifest().id, two.manifest().id);
    first.verify(&one).unwrap();

    let names: Vec<&str> = one
        .manifest()
        .packages
        .iter()
        .map(|package| package.name.as_str())
        .collect();
    for name in ["bash", "coreutils", "libc6", "python3", "python3.11"] {
        assert!(names.contains(&name), "{name} is missing from {names:?}");
    }
    let one = one.verified().unwrap();
    assert!(fs::read(one.vmlinux()).unwrap().starts_with(b"\x7fELF"));
    assert_eq!(
        &fs::read(one.rootfs()).unwrap()[1024..1028],
        &0xe0f5_e1e2_u32.to_le_bytes()
    );
    let modules = fs::read(one.modules()).unwrap();
    for name in [
        "virtio_mmio.ko",
        "virtio_blk.ko",
        "virtio_console.ko",
        "erofs.ko",
        "overlay.ko",
        "modules/order",
    ] {
        assert!(
            modules
                .windows(name.len())
                .any(|window| window == name.as_bytes()),
            "{name}"
        );
    }

    // A third asks for nothing new and does nothing.
    let steps = Steps::default();
    build_base(&first, &cache, &steps);
    assert_eq!(steps.0.into_inner(), [Step::Prepare]);
    for store in [&first, &second] {
        assert_eq!(
            fs::read_dir(store.root().join("staging")).unwrap().count(),
            0
        );
    }
}

#[test]
fn an_unknown_package_is_named_and_leaves_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("mine.toml");
    fs::write(&path, "packages = ['firelane-no-such-package']").unwrap();
    let store = Store::open(&scratch.path().join("store")).unwrap();
    let options = Options {
        cache: Some(cache(scratch.path())),
        ..Options::default()
    };
    let error = build(
        &store,
        &Definition::from_file(&path).unwrap(),
        &options,
        &Silent,
    )
    .unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(
        source,
        "no such Debian package in bookworm: firelane-no-such-package"
    );
    assert!(error.remedy().unwrap().contains("firelane-no-such-package"));
    assert!(store.list().unwrap().is_empty());
    assert_eq!(
        fs::read_dir(store.root().join("staging")).unwrap().count(),
        0
    );
}

/// A definition may come from somebody else: to build it must not run what is in it, nor follow its links.
#[test]
fn nothing_of_a_definition_runs_on_the_host_or_leads_out_of_the_tree() {
    let scratch = tempfile::tempdir().unwrap();
    let (ran, outside) = (scratch.path().join("ran"), scratch.path().join("outside"));
    fs::create_dir(&outside).unwrap();
    let path = scratch.path().join("hostile.toml");
    let modules = [
        "compileall",
        "sitecustomize",
        "importlib/__init__",
        "re/__init__",
    ];
    let files: String = modules
        .iter()
        .map(|module| {
            format!(
                "[files.'usr/lib/python3.11/{module}.py']\ncontent = \"open('{}', 'w')\"\n",
                ran.display()
            )
        })
        .collect();
    let definition = format!(
        "include = ['base']\n[links]\n'usr/lib/python3/dist-packages/__pycache__' = '{}'\n{files}\
         [files.'usr/lib/python3/dist-packages/mine.py']\ncontent = 'mine = 1'\n",
        outside.display()
    );
    fs::write(&path, definition).unwrap();
    let store = Store::open(&scratch.path().join("store")).unwrap();
    let options = Options {
        cache: Some(cache(scratch.path())),
        ..Options::default()
    };
    let definition = Definition::from_file(&path).unwrap();
    build(&store, &definition, &options, &Silent).unwrap();
    assert!(!ran.exists());
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}
