//! Nothing is left of a run that was interrupted or killed, whatever it was doing.

#![expect(clippy::unwrap_used, reason = "in a test an unwrap is an assertion")]

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use firelane_testkit::{Lab, MicroVm, Running, processes_of};
use rustix::process::Signal;

const PROGRAM: [&str; 7] = [
    "run",
    "--template",
    "base",
    "--lang",
    "bash",
    "-c",
    "echo up; sleep 600",
];

/// Waits for a state of the run.
fn wait_until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "no {what} after a minute"
        );
        std::thread::yield_now();
    }
}

fn microvm(lab: &Lab) -> MicroVm {
    wait_until("microVM on record", || {
        lab.microvms().into_iter().find(|vm| vm.vmm().is_some())
    })
}

fn interrupt(signal: Signal, expected: i32, reached: impl Fn(&Lab, &mut Running)) {
    let lab = Lab::new();
    let mut running = Running::start(lab.command(&PROGRAM), b"");
    reached(&lab, &mut running);
    let vms = lab.microvms();
    running.signal(signal);
    let ended = running.end();
    assert_eq!(ended.code, expected, "{ended:?}");
    assert!(ended.stderr.contains("interrupted"), "{ended:?}");
    vms.iter().for_each(MicroVm::assert_gone);
    lab.assert_empty();
}

#[test]
fn interrupted_while_it_starts() {
    interrupt(Signal::INT, 130, |lab, _| {
        drop(wait_until("run directory", || lab.microvms().pop()));
    });
}

#[test]
fn interrupted_while_it_boots() {
    interrupt(Signal::INT, 130, |lab, _| drop(microvm(lab)));
}

#[test]
fn interrupted_while_the_program_runs() {
    interrupt(Signal::INT, 130, |_, running| {
        assert_eq!(running.line(), "up\n");
    });
}

#[test]
fn terminated_while_the_program_runs() {
    interrupt(Signal::TERM, 143, |_, running| {
        assert_eq!(running.line(), "up\n");
    });
}

#[test]
fn hung_up_while_the_program_runs() {
    interrupt(Signal::HUP, 129, |_, running| {
        assert_eq!(running.line(), "up\n");
    });
}

/// Sends a signal to a run that carries files, once it has got as far as `reached` says.
fn interrupt_with_files(more: &[&str], code: &str, reached: impl Fn(&Lab, &Running) -> bool) {
    for signal in [Signal::INT, Signal::KILL] {
        let lab = Lab::new();
        let big = fs::File::create(lab.path().join("big")).unwrap();
        // Minutes of transfer under emulation; nobody waits for its end.
        big.set_len(512 << 20).unwrap();
        let head = ["run", "--template", "base", "--lang", "bash"];
        let args: Vec<&str> = head
            .iter()
            .chain(more)
            .chain(&["-c", code])
            .copied()
            .collect();
        let running = Running::start(lab.command(&args), b"");
        wait_until("transfer", || reached(&lab, &running).then_some(()));
        let vm = microvm(&lab);
        running.signal(signal);
        let ended = running.end();
        let expected = if signal == Signal::INT { 130 } else { -9 };
        assert_eq!(ended.code, expected, "{ended:?}");
        if signal == Signal::KILL {
            let next = lab.run_json("bash", "echo next", &[]);
            assert_eq!(next["stdout"], "next\n");
        }
        vm.assert_gone();
        lab.assert_empty();
        assert!(
            !lab.path().join("out").exists(),
            "half a file has taken the name of the whole"
        );
    }
}

#[test]
fn interrupted_or_killed_while_a_file_is_put() {
    interrupt_with_files(&["--file", "big:/work/big"], "true", |lab, running| {
        let big = lab.path().join("big");
        running.position_in(&big).is_some_and(|bytes| bytes > 0)
    });
}

#[test]
fn interrupted_or_killed_while_a_file_is_fetched() {
    let args = ["--memory-mib", "1024", "--out", "/work/big:out"];
    interrupt_with_files(&args, "truncate -s 256M big", |lab, _| {
        aside(lab.path()).is_some_and(|bytes| bytes > 0)
    });
}

/// Size of the file that a fetch is writing beside its target.
fn aside(folder: &Path) -> Option<u64> {
    let mut entries = fs::read_dir(folder).ok()?.flatten();
    let half = entries.find(|entry| {
        entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(b".firelane-")
    });
    Some(half?.metadata().ok()?.len())
}

/// The VMM is gone, its files are not yet, or are: whichever moment the signal meets, the outcome
/// is one of two, and nothing is left.
#[test]
fn interrupted_while_the_microvm_is_destroyed() {
    let lab = Lab::new();
    let args = [
        "run",
        "--template",
        "base",
        "--lang",
        "bash",
        "-c",
        "echo done",
    ];
    let mut running = Running::start(lab.command(&args), b"");
    assert_eq!(running.line(), "done\n");
    let vm = lab.microvms().pop();
    if let Some(vmm) = vm.as_ref().and_then(MicroVm::vmm) {
        wait_until("end of the VMM", || (!vmm.lives()).then_some(()));
    }
    running.signal(Signal::INT);
    let ended = running.end();
    assert!([0, 130].contains(&ended.code), "{ended:?}");
    vm.iter().for_each(MicroVm::assert_gone);
    lab.assert_empty();
}

#[test]
fn several_starts_at_once_sweep_what_one_left() {
    let lab = Lab::new();
    let mut killed = Running::start(lab.command(&PROGRAM), b"");
    assert_eq!(killed.line(), "up\n");
    let vm = microvm(&lab);
    killed.signal(Signal::KILL);
    assert_eq!(killed.end().code, -9);
    let args = [
        "run",
        "--template",
        "base",
        "--lang",
        "bash",
        "-c",
        "echo mine",
    ];
    let starts = [(); 3].map(|()| Running::start(lab.command(&args), b""));
    for start in starts {
        let ended = start.end();
        assert_eq!((ended.code, &*ended.stdout), (0, "mine\n"), "{ended:?}");
        assert_eq!(ended.stderr, "", "a sweep found what another had taken");
    }
    vm.assert_gone();
    lab.assert_empty();
}

/// A store of its own, in which a build is interrupted as soon as it unpacks packages.
#[test]
fn interrupted_or_killed_while_a_template_is_built() {
    for signal in [Signal::INT, Signal::KILL] {
        let lab = Lab::new();
        let store = lab.path().join("store");
        let mut command = lab.command(&["template", "build", "base"]);
        command.env("FIRELANE_HOME", &store);
        let building = Running::start(command, b"");
        wait_until("tool of the build", || {
            (!processes_of(&store).is_empty()).then_some(())
        });
        building.signal(signal);
        let ended = building.end();
        let expected = if signal == Signal::INT { 130 } else { -9 };
        assert_eq!(ended.code, expected, "{ended:?}");
        wait_until("end of the build's tools", || {
            processes_of(&store).is_empty().then_some(())
        });

        let mut command = lab.command(&["template", "list", "--json"]);
        command.env("FIRELANE_HOME", &store);
        let next = Running::start(command, b"").end();
        assert_eq!((next.code, next.stdout.trim()), (0, "[]"), "{next:?}");
        for folder in ["staging", "blobs"] {
            let left: Vec<_> = fs::read_dir(store.join(folder))
                .unwrap()
                .flatten()
                .collect();
            assert!(left.is_empty(), "left in {folder}: {left:?}");
        }
    }
}

/// After SIGKILL nothing of ours can act; the VMM dies with its owner, and the next start removes
/// the rest.
fn killed(reached: impl Fn(&Lab, &mut Running)) {
    let lab = Lab::new();
    let mut running = Running::start(lab.command(&PROGRAM), b"");
    reached(&lab, &mut running);
    let vms = lab.microvms();
    assert!(!vms.is_empty());
    running.signal(Signal::KILL);
    assert_eq!(running.end().code, -9);
    let after = lab.run_json("bash", "echo next", &[]);
    assert_eq!(after["stdout"], "next\n");
    vms.iter().for_each(MicroVm::assert_gone);
    lab.assert_empty();
}

#[test]
fn killed_while_it_boots() {
    killed(|lab, _| drop(microvm(lab)));
}

#[test]
fn killed_while_the_program_runs() {
    killed(|_, running| assert_eq!(running.line(), "up\n"));
}

#[test]
fn a_run_that_lives_is_not_swept() {
    let lab = Lab::new();
    let mut running = Running::start(
        lab.command(&[
            "run",
            "--template",
            "base",
            "--lang",
            "bash",
            "-c",
            "echo up; read -r x; echo $x",
        ]),
        b"",
    );
    assert_eq!(running.line(), "up\n");
    let other = lab.run_json("bash", "echo other", &[]);
    assert_eq!(other["stdout"], "other\n");
    running.write(b"still here\n");
    assert_eq!(running.line(), "still here\n");
    assert_eq!(running.end().code, 0);
}

#[test]
fn a_vmm_that_dies_is_reported_with_what_it_said() {
    let lab = Lab::new();
    let mut running = Running::start(lab.command(&PROGRAM), b"");
    assert_eq!(running.line(), "up\n");
    let vm = microvm(&lab);
    vm.vmm().unwrap().kill().unwrap();
    let ended = running.end();
    assert_eq!(ended.code, 125, "{ended:?}");
    assert!(
        ended
            .stderr
            .contains("the microVM ended during the run: it ended with signal 9"),
        "{ended:?}"
    );
    vm.assert_gone();
    lab.assert_empty();
}
