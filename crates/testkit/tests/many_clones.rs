//! Many clones at once whose memory is handed out as they miss it: each has its own, and what they needed on this side is
//! gone with them. By itself in this file, because it counts what its whole process has.

use std::fs;
use std::path::Path;
use std::time::Duration;

use firelane_testkit::Lab;
use firelane_testkit::conformance::{Subject, bare_command, bare_machine};
use firelane_vmm::driver::{Machine, SnapshotFiles};
use firelane_vmm::firecracker::{Firecracker, Jailing, MemoryFrom, Place};
use tokio::time::timeout;

/// Memory of each guest in MiB.
const MEMORY_MIB: u32 = 16;
const CLONES: usize = 100;
/// The stand-in for a Firecracker.
const FAKE: &str = env!("CARGO_BIN_EXE_fake-firecracker");
/// How long something that must happen may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Threads of this process that hand out memory.
fn pagers() -> usize {
    let threads = fs::read_dir("/proc/self/task").expect("our own threads");
    let names =
        threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("comm")).ok());
    names.filter(|name| name.trim() == "pager").count()
}

/// Descriptors of this process that are userfaultfds, or lead into this folder.
fn descriptors(folder: &Path) -> usize {
    let links = fs::read_dir("/proc/self/fd").expect("our own descriptors");
    let links = links.filter_map(|link| fs::read_link(link.ok()?.path()).ok());
    let counts =
        |link: &Path| link.starts_with(folder) || link == Path::new("anon_inode:[userfaultfd]");
    links.filter(|link| counts(link)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_clones_have_a_memory_each_and_leave_no_thread_or_descriptor() {
    let lab = Lab::new();
    let found = Firecracker::find(Place {
        program: FAKE.into(),
        jailing: Jailing::None,
        jail_program: FAKE.into(),
        run_base: lab.run_dir(),
    });
    let driver = found.await.expect("it says its version");
    let machine = Machine {
        kernel: FAKE.into(),
        ..bare_machine(&lab, MEMORY_MIB)
    };
    let subject = Subject {
        driver: std::sync::Arc::new(driver.with_memory(MemoryFrom::Userfault)),
        machine,
        command: bare_command,
        lab,
    };
    let folder = subject.lab.path().to_owned();
    let files = SnapshotFiles::new(folder.join("memory"), folder.join("state"));
    let template = Machine {
        snapshot: Some(files.clone()),
        ..subject.named("template")
    };
    let template = subject.boot_machine(&template).await.expect("it boots");
    assert_eq!(subject.count(&*template).await, 1);
    template.snapshot().await.expect("it can be saved");
    let before = descriptors(&folder);

    let mut clones = Vec::new();
    for number in 0..CLONES {
        let restored = subject.restore(&format!("clone-{number}"), &files).await;
        clones.push(restored.expect("it is sound"));
    }
    assert_eq!(pagers(), CLONES);
    assert!(descriptors(&folder) >= before + CLONES);
    for vm in &clones {
        assert_eq!(subject.count(&**vm).await, 2);
    }
    assert_eq!(subject.count(&*clones[7]).await, 3);
    assert_eq!(subject.count(&*clones[8]).await, 3);
    for (number, vm) in clones.into_iter().enumerate() {
        match number % 2 {
            0 => vm.destroy().await.expect("it ends"),
            _ => drop(vm),
        }
    }
    timeout(PATIENCE, async {
        while pagers() > 0 || descriptors(&folder) > before {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("they end with their owners");
    for swept in firelane_vmm::rundir::sweep(&subject.lab.run_dir()) {
        swept.result.expect("what was dropped is swept");
    }
    subject.lab.assert_empty();
}
