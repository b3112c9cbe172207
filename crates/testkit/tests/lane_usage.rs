//! The lane's commands, used wrongly: what is said, the exit code, and that nothing was begun.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use firelane_testkit::{Ended, Lab, Running};
use rustix::process::Signal;

fn firelane(lab: &Lab, args: &[&str], variables: &[(&str, &str)]) -> Ended {
    let mut command = lab.command(args);
    for name in ["PROVIDER", "LABEL", "REGION", "INSTANCE_TYPE"] {
        command.env_remove(name);
    }
    command.env("FIRELANE_LANES", lab.path().join("lanes"));
    command.envs(variables.iter().copied());
    Running::start(command, b"").end()
}

/// Ends with 2, says that, and has begun nothing.
fn refused(args: &[&str], variables: &[(&str, &str)], said: &str) {
    let lab = Lab::new();
    let ended = firelane(&lab, args, variables);
    assert_eq!(ended.code, 2, "{args:?}: {ended:?}");
    assert!(ended.stderr.contains(said), "{args:?}: {ended:?}");
    let lanes = lab.path().join("lanes/lanes");
    let begun = fs::read_dir(lanes).map_or(0, Iterator::count);
    assert_eq!(begun, 0, "{args:?}");
}

#[test]
fn an_unknown_provider_is_refused_with_those_that_there_are() {
    let known = "there is no provider \"nowhere\"; there are ";
    refused(&["up", "--provider", "nowhere"], &[], known);
    refused(&["up"], &[("PROVIDER", "nowhere")], known);
    refused(&["down", "--provider", "nowhere"], &[], known);
    refused(&["preflight", "nowhere"], &[], known);
}

#[test]
fn what_is_missing_is_named() {
    refused(&["up"], &[], "--provider");
    refused(&["down"], &[], "say --provider NAME, or --label LABEL");
    refused(
        &["up", "--provider", "existing"],
        &[],
        "say --host [USER@]HOST[:PORT]",
    );
    refused(&["ssh", "mine"], &[], "this machine knows no lane mine");
    refused(&["logs", "mine"], &[], "this machine knows no lane mine");
    refused(&["verify", "mine"], &[], "this machine knows no lane mine");
    refused(
        &["down", "--label", "mine"],
        &[],
        "this machine knows no lane mine",
    );
}

#[test]
fn labels_times_and_sums_that_are_none_are_refused_with_the_rule() {
    let up = ["up", "--provider", "existing", "--host", "box.example"];
    let with = |more: &[&'static str]| [&up[..], more].concat();
    refused(
        &with(&["--label", "Mine"]),
        &[],
        "a label begins with a letter",
    );
    refused(&up, &[("LABEL", "-mine")], "a label begins with a letter");
    let long = "a".repeat(41);
    refused(&up, &[("LABEL", &long)], "1 to 40 characters, not 41");
    refused(&with(&["--ttl", "4w"]), &[], "write minutes, hours or days");
    refused(&with(&["--max-spend", "much"]), &[], "write US dollars");
    refused(&with(&["--disk-gib", "1"]), &[], "8..=16384");
    refused(
        &with(&["--programs", "/nowhere"]),
        &[],
        "say --programs FOLDER",
    );
}

#[test]
fn a_host_that_could_be_more_than_a_host_is_refused() {
    for host in ["-oProxyCommand=x", "box example", "box:0"] {
        let host = format!("--host={host}");
        refused(
            &["up", "--provider", "existing", &host],
            &[],
            "is no host and port",
        );
    }
}

#[test]
fn a_script_that_lacks_a_function_is_refused_with_its_name() {
    let lab = Lab::new();
    lab.file("mine.sh", "provider_up() { echo 192.0.2.1; }\n");
    let ended = firelane(&lab, &["up", "--provider", "./mine.sh"], &[]);
    assert_eq!(ended.code, 2, "{ended:?}");
    let said = "the script does not define provider_default_instance_type";
    assert!(ended.stderr.contains(said), "{ended:?}");
    let ended = firelane(&lab, &["up", "--provider", "./nowhere.sh"], &[]);
    assert_eq!(ended.code, 2, "{ended:?}");
    assert!(ended.stderr.contains("nowhere.sh"), "{ended:?}");
}

#[test]
fn a_price_that_is_not_known_does_not_fit_a_limit() {
    let lab = Lab::new();
    let script = "provider_default_instance_type() { echo small; }\nprovider_default_region() { echo here; }\n\
                  provider_up() { echo up >> calls; echo 192.0.2.1; }\nprovider_down() { :; }\n";
    lab.file("mine.sh", script);
    let ended = firelane(
        &lab,
        &["up", "--provider", "./mine.sh", "--max-spend", "5"],
        &[],
    );
    assert_eq!(ended.code, 2, "{ended:?}");
    assert!(ended.stderr.contains("its price is not known"), "{ended:?}");
    assert!(!lab.path().join("calls").exists());

    let dry = firelane(&lab, &["up", "--provider", "./mine.sh", "--dry-run"], &[]);
    assert_eq!(dry.code, 0, "{dry:?}");
    assert!(
        dry.stdout.contains("provider_up\n    label = default\n"),
        "{dry:?}"
    );
    assert!(!lab.path().join("calls").exists());
}

#[test]
fn what_a_provider_would_leave_out_is_refused() {
    let existing = ["up", "--provider", "existing", "--host", "box.example"];
    let from = [&existing[..], &["--ssh-from", "192.0.2.7/32"]].concat();
    refused(&from, &[], "existing has no firewall");
    let from = ("FIRELANE_SSH_FROM", "192.0.2.7/32");
    refused(&existing, &[from], "FIRELANE_SSH_FROM unset");
    let key = ("SSH_PUBKEY", "ssh-ed25519 AAAA me");
    refused(&existing, &[key], "SSH_PUBKEY unset");
}

#[test]
fn without_lanes_there_is_nothing_to_list_and_nothing_to_remove() {
    let lab = Lab::new();
    let listed = firelane(&lab, &["list"], &[]);
    assert_eq!((listed.code, listed.stdout.trim()), (0, "no lanes"));
    let down = firelane(&lab, &["down", "--provider", "existing"], &[]);
    assert_eq!((down.code, down.stdout.trim()), (0, "nothing to remove"));
}

#[test]
fn a_script_that_removes_nothing_has_not_removed_everything() {
    let lab = Lab::new();
    let script = "provider_default_instance_type() { echo small; }\nprovider_default_region() { echo here; }\n\
                  provider_up() { echo 192.0.2.1; }\nprovider_down() { echo 'no answer' >&2; return 1; }\n";
    lab.file("mine.sh", script);
    let down = firelane(&lab, &["down", "--provider", "./mine.sh"], &[]);
    assert_eq!(down.code, 3, "{down:?}");
    assert!(down.stderr.contains("may cost money"), "{down:?}");
    assert!(!down.stdout.contains("nothing to remove"), "{down:?}");
}

#[test]
fn a_script_ends_with_whoever_waits_for_it() {
    let lab = Lab::new();
    let script = "provider_default_instance_type() { echo small; }\nprovider_default_region() { echo here; }\n\
                  provider_up() { echo $BASHPID > begun.new; mv begun.new begun; sleep 5; echo up > made; echo 192.0.2.1; }\n\
                  provider_down() { :; }\n";
    lab.file("mine.sh", script);
    let mut command = lab.command(&["up", "--provider", "./mine.sh", "--label", "mine"]);
    command.env("FIRELANE_LANES", lab.path().join("lanes"));
    command.env_remove("SSH_PUBKEY");
    command.env_remove("FIRELANE_SSH_FROM");
    let running = Running::start(command, b"");
    let soon = Instant::now() + Duration::from_secs(60);
    let begun = loop {
        if let Ok(begun) = fs::read_to_string(lab.path().join("begun")) {
            break begun;
        }
        assert!(Instant::now() < soon, "it does not begin");
        std::thread::sleep(Duration::from_millis(10));
    };
    running.signal(Signal::KILL);
    assert_eq!(running.end().code, -9);
    // Until it is gone: what is collected by nobody yet has no command line.
    let process = Path::new("/proc").join(begun.trim()).join("cmdline");
    while fs::read(&process).is_ok_and(|line| !line.is_empty()) {
        assert!(Instant::now() < soon, "it goes on");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(!lab.path().join("made").exists());
}
