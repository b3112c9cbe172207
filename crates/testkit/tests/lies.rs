//! A guest that lies: whatever it sends, the host's command ends with a clear error and leaves
//! nothing, and the next run works.

use std::fs;

use firelane_testkit::{Ended, Lab, Running};

/// Runs against a guest that tells this lie.
fn against(lab: &Lab, lie: &str) -> Ended {
    let vmm = lab.path().join(format!("lying-vmm-{lie}"));
    fs::copy(env!("CARGO_BIN_EXE_lying-vmm"), &vmm).expect("our own folder");
    let args = [
        "run",
        "--cold",
        "--timeout",
        "1",
        "--template",
        "base",
        "--lang",
        "bash",
        "-c",
        "echo never",
    ];
    let mut command = lab.command(&args);
    command.env("FIRELANE_QEMU", &vmm);
    let ended = Running::start(command, b"").end();
    lab.assert_empty();
    ended
}

#[test]
fn every_lie_is_found_and_named() {
    let lab = Lab::new();
    let check = |lie: &str, expected: &str| {
        let ended = against(&lab, lie);
        assert_eq!(ended.code, 125, "{lie}: {ended:?}");
        assert!(ended.stderr.contains(expected), "{lie}: {ended:?}");
        assert!(!ended.stderr.contains('\x1b'), "{lie}: {ended:?}");
        assert_eq!(ended.stdout, "", "{lie}");
    };
    check(
        "dies",
        "it ended with exit code 3\n--- stderr ---\nlying-vmm: cannot do this today",
    );
    check("monitor-garbage", "the VMM refused its configuration");
    check(
        "link-garbage",
        "cannot attach to the guest: unknown link frame 0xaa 0xaa",
    );
    check("link-oversize", "the connection to the guest ended");
    check(
        "link-flood",
        "the guest broke the protocol: unknown frame kind 0x00",
    );
    check(
        "session-garbage",
        "the guest broke the protocol: unknown frame kind 0x55",
    );
    check(
        "session-version",
        "the guest broke the protocol: it chose a version that was not offered",
    );
    check(
        "session-oversize",
        "frame of kind 0x13 has 4294967295 bytes, its cap is 65536",
    );
    check(
        "session-starts-for-ever",
        "the guest broke the protocol: frames that nothing bounds",
    );
    check(
        "session-empty-data",
        "the guest broke the protocol: frames that nothing bounds",
    );
    check("session-commands", "a Signal frame from the guest");
    check("session-entries", "a Entries frame on None of an exec");
    check("session-impossible", "an outcome that cannot be");
    check("session-malformed", "Exited message is malformed");
    check(
        "session-escapes",
        "the guest refused: ]0;ownedfirelane: no\n",
    );
    let after = lab.run_json("bash", "echo fine", &[]);
    assert_eq!(after["stdout"], "fine\n");
}

#[test]
fn output_without_end_is_cut_at_the_window_or_the_limit() {
    let ended = against(&Lab::new(), "session-flood");
    assert_eq!(ended.code, 125, "{}", ended.stderr);
    assert!(
        ended.stdout.len() <= 16 << 20,
        "{} bytes were passed on",
        ended.stdout.len()
    );
    let found = [
        "more data than its window",
        "more output than its limit of 16777216 bytes",
    ];
    assert!(
        found.iter().any(|text| ended.stderr.contains(text)),
        "{}",
        ended.stderr
    );
}

#[test]
fn an_outcome_that_never_comes_is_not_waited_for_for_ever() {
    let ended = against(&Lab::new(), "silence");
    assert_eq!(ended.code, 125, "{ended:?}");
    assert!(
        ended
            .stderr
            .contains("the guest did not keep the time limit of 1s"),
        "{ended:?}"
    );
}

#[test]
fn frames_of_connections_that_do_not_exist_cost_nothing() {
    // The guest talks for ever, but never answers the hello.
    let ended = against(&Lab::new(), "link-stranger");
    assert_eq!(ended.code, 125, "{ended:?}");
    assert!(
        ended.stderr.contains("the guest did not answer within 30s"),
        "{ended:?}"
    );
}
