//! Bad input: one line that names what is wrong and the remedy, exit code 2 or 125, nothing left.

use std::fs;

use firelane_testkit::Lab;

fn check(lab: &Lab, args: &[&str], code: i32, expected: &str) {
    let ended = lab.firelane(args);
    assert_eq!(ended.code, code, "{args:?} {ended:?}");
    let flat = ended
        .stderr
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    assert!(flat.contains(expected), "{args:?} {ended:?}");
    assert_eq!(ended.stdout, "");
    lab.assert_empty();
}

#[test]
fn wrong_arguments_are_named() {
    let lab = Lab::new();
    lab.file("empty.py", "");
    lab.file("large.py", vec![b'#'; (1 << 20) + 1]);
    lab.file("unknown.xyz", "print(1)");
    lab.file("ok.py", "print(1)");
    let usage = |args: &[&str], expected: &str| check(&lab, args, 2, expected);
    usage(
        &["run", "--lang", "cobol", "-c", "x"],
        "unknown language 'cobol' (known: python, bash, node, ruby, rust)",
    );
    usage(
        &["run"],
        "no code: name a file, or - for standard input, or use -c CODE",
    );
    usage(&["run", "empty.py"], "empty.py is empty");
    usage(
        &["run", "--lang", "bash", "-c", ""],
        "the code of -c is empty",
    );
    usage(
        &["run", "large.py"],
        "large.py is over 1 MiB; put what is large in with --file",
    );
    usage(
        &["run", "missing.py"],
        "cannot read missing.py: No such file or directory",
    );
    usage(&["run", "."], "cannot read .: Is a directory");
    usage(
        &["run", "unknown.xyz"],
        "give --lang with one of python, bash, node, ruby, rust",
    );
    usage(
        &["run", "-c", "print(1)"],
        "code of -c has no language; give --lang",
    );
    usage(
        &["run", "--timeout", "0", "ok.py"],
        "a time limit is at least 1ms",
    );
    usage(
        &["run", "--timeout", "-1", "ok.py"],
        "a time limit is at least 1ms",
    );
    usage(
        &["run", "--timeout", "soon", "ok.py"],
        "not a time: write seconds",
    );
    usage(
        &["run", "--memory-mib", "1", "ok.py"],
        "1 is not in 128..=65536",
    );
    usage(&["run", "--vcpus", "0", "ok.py"], "0 is not in 1..=32");
    usage(&["run", "--env", "A", "ok.py"], "write NAME=VALUE");
    usage(&["run", "--file", "x", "ok.py"], "write HOST:GUEST");
    usage(
        &["run", "--file", "missing:x", "ok.py"],
        "cannot read missing: No such file",
    );
    usage(
        &["run", "--out", "x:missing/x", "ok.py"],
        "cannot write missing/x: not a file in an existing folder",
    );
    usage(&["run", "--stdin-file", ".", "ok.py"], ". is a folder");
    usage(
        &["run", "--stdin-file", "missing", "ok.py"],
        "cannot read missing: No such file",
    );
    usage(&["run", "--template", "nonsense", "ok.py"], "nonsense");
    usage(&["template", "show", "nonsense"], "nonsense");
    usage(&["template", "rm", "nonsense"], "nonsense");
    usage(&["template", "build", "./missing.toml"], "missing.toml");
    usage(&["shell"], "a shell needs a terminal");
    usage(&["fly"], "unrecognized subcommand 'fly'");
}

#[test]
fn what_the_host_lacks_is_named_with_the_remedy() {
    let lab = Lab::new();
    lab.file("ok.py", "print(1)");
    let platform = |variable: &str, value: &str, args: &[&str], expected: &str| {
        let mut command = lab.command(args);
        command.env(variable, value);
        let ended = firelane_testkit::Running::start(command, b"").end();
        assert_eq!(ended.code, 125, "{ended:?}");
        assert!(ended.stderr.contains(expected), "{ended:?}");
        assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
    };
    let run = ["run", "--template", "base", "ok.py"];
    platform(
        "FIRELANE_QEMU",
        "/nonexistent/qemu",
        &run,
        "QEMU is not installed: /nonexistent/qemu was not found; remedy: apt-get install",
    );
    platform(
        "FIRELANE_GUEST",
        "/nonexistent/guest",
        &run,
        "the guest-runner /nonexistent/guest is missing; remedy:",
    );
    let long = format!("/tmp/{}", "x".repeat(100));
    platform("FIRELANE_RUN_DIR", &long, &run, "is too long for a socket");
    assert!(!fs::exists(format!("{long}/v.sock")).unwrap());
    let firecracker = [
        "run",
        "--template",
        "base",
        "--driver",
        "firecracker",
        "ok.py",
    ];
    platform(
        "FIRELANE_FIRECRACKER",
        "/nonexistent/firecracker",
        &firecracker,
        "/nonexistent/firecracker was not found; remedy: name a static Firecracker, v1.16.1 or later",
    );
    platform(
        "FIRELANE_FIRECRACKER",
        "/bin/true",
        &firecracker,
        "/bin/true does not tell its version",
    );
    fs::remove_dir_all(long).ok();
}

#[test]
fn help_names_the_exit_codes() {
    let ended = Lab::new().firelane(&["run", "--help"]);
    assert_eq!(ended.code, 0);
    for code in [
        "124 time limit",
        "127 no interpreter",
        "137 killed or out of memory",
        "125 Firelane failed",
        "2 wrong usage",
    ] {
        assert!(
            ended
                .stdout
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" ")
                .contains(code),
            "{code}"
        );
    }
}

#[test]
fn completions_are_made_for_each_shell() {
    let lab = Lab::new();
    for shell in ["bash", "zsh", "fish"] {
        let ended = lab.firelane(&["completions", shell]);
        assert!(
            ended.code == 0 && ended.stdout.contains("firelane"),
            "{shell}"
        );
    }
}
