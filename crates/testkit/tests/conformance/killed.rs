//! An owner that is killed takes its VMMs with it, in whatever jail they are, and the next sweep the rest.

use std::time::{Duration, Instant};

use firelane_testkit::{Lab, MicroVm, Running};
use firelane_vmm::rundir;
use rustix::process::Signal;

/// How long something that must happen may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `what` is there.
fn wait<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
#[ignore = "needs a real Firecracker and its jailer: FIRELANE_FIRECRACKER and FIRELANE_JAILER name them"]
fn real_firecrackers_end_with_an_owner_that_is_killed() {
    end_with_their_owner("file");
}

#[test]
#[ignore = "needs a real Firecracker and its jailer: FIRELANE_FIRECRACKER and FIRELANE_JAILER name them"]
fn real_firecrackers_do_not_wait_for_memory_of_an_owner_that_is_killed() {
    end_with_their_owner("userfault");
}

/// Kills the owner of several VMMs whose guests come by their memory in this way.
fn end_with_their_owner(memory: &str) {
    const CLONES: usize = 5;
    let lab = Lab::new();
    let clones = CLONES.to_string();
    let mut command = lab.command(&[
        "bench",
        "firecracker",
        "--runs",
        "1",
        "--memory-mib",
        "128",
        "--clones",
        &clones,
    ]);
    command.env("FIRELANE_FIRECRACKER_MEMORY", memory);
    let running = Running::start(command, b"");
    // Clones are made one after the other, and live together.
    let some: Vec<MicroVm> = wait("several VMMs live", || {
        let microvms = lab.microvms();
        let all = microvms.iter().all(|vm| vm.vmm().is_some());
        (all && microvms.len() >= 2).then_some(microvms)
    });
    running.signal(Signal::KILL);
    let _ = running.end();
    wait("they end with their owner", || {
        let lives = |vm: &MicroVm| vm.vmm().is_some_and(|vmm| vmm.lives());
        (!some.iter().any(lives)).then_some(())
    });
    for swept in rundir::sweep(&lab.run_dir()) {
        swept.result.expect("the sweep removes it");
    }
    lab.assert_empty();
    for vm in some {
        vm.assert_gone();
    }
}
