//! Nothing is left of a run that was interrupted or killed, whatever it was doing.

use std::time::{Duration, Instant};

use firelane_testkit::{Lab, MicroVm, Running};
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
