//! `firelane run`: its inputs, its outputs, its options.

use std::fs;

use firelane_testkit::{Lab, Running};
use serde_json::Value;

const BASE: [&str; 3] = ["run", "--template", "base"];

fn with<'a>(more: &[&'a str]) -> Vec<&'a str> {
    BASE.iter().chain(more).copied().collect()
}

#[test]
fn the_example_of_the_readme_runs() {
    let lab = Lab::new();
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/hello.py");
    let ended = lab.firelane(&["run", "--timings", example]);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(
        ended.stdout.starts_with("Hello from Python 3."),
        "{ended:?}"
    );
    let phases = [
        "spawned",
        "configured",
        "loaded",
        "started",
        "guest_ready",
        "connected",
        "renewed",
        "sent",
        "result",
        "destroyed",
    ];
    let told: Vec<&str> = ended
        .stderr
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert_eq!(told, phases);
}

#[test]
fn json_has_the_documented_fields() {
    let lab = Lab::new();
    let report = lab.run_json("bash", r"printf 'a\xff'; printf err >&2; exit 3", &[]);
    let fields: Vec<&String> = report.as_object().unwrap().keys().collect();
    let expected = [
        "acceleration",
        "driver",
        "exit_code",
        "interpreter",
        "lang",
        "origin",
        "out_of_memory",
        "signal",
        "stderr",
        "stdout",
        "stdout_base64",
        "timed_out",
        "timings",
        "trace_id",
        "truncated",
    ];
    assert_eq!(fields, expected);
    assert_eq!(report["lang"], "bash");
    assert_eq!(report["stdout"], "a\u{fffd}");
    assert_eq!(report["stdout_base64"], "Yf8=");
    assert_eq!(report["stderr"], "err");
    assert_eq!(report["exit_code"], 3);
    assert_eq!(report["signal"], Value::Null);
    assert_eq!(report["timed_out"], false);
    let phases = report["timings"]["phases"].as_object().unwrap();
    assert_eq!(phases.len(), 10);
    assert!(phases["spawned"].as_f64() < phases["destroyed"].as_f64());
}

#[test]
fn output_streams_while_the_program_runs() {
    let lab = Lab::new();
    let code = "read -r line; echo \"got $line\"; read -r line; echo \"then $line\"";
    let mut running = Running::start(lab.command(&with(&["--lang", "bash", "-c", code])), b"");
    running.write(b"one\n");
    // The program waits for its second line, so this one was passed on while it ran.
    assert_eq!(running.line(), "got one\n");
    running.write(b"two\n");
    assert_eq!(running.line(), "then two\n");
    assert_eq!(running.end().code, 0);
}

#[test]
fn code_from_standard_input_and_input_from_a_file() {
    let lab = Lab::new();
    let data = lab.file("data.txt", "from the file\n");
    let args = with(&["--stdin-file", data, "-"]);
    let ended = lab.firelane_with(&args, b"#!/usr/bin/env python3\nprint(input())\n");
    assert_eq!(
        (ended.code, ended.stdout.as_str()),
        (0, "from the file\n"),
        "{ended:?}"
    );
}

#[test]
fn files_go_in_and_come_out() {
    let lab = Lab::new();
    lab.file("in.bin", [0, 1, 0xff]);
    lab.file("module.py", "ANSWER = 42");
    let script = lab.file(
        "main.py",
        "import module, pathlib\n\
         data = pathlib.Path('sub/in.bin').read_bytes()\n\
         pathlib.Path('out.bin').write_bytes(data * 100_000)\n\
         print(module.ANSWER)",
    );
    let args = with(&[
        "--file",
        "in.bin:sub/in.bin",
        "--file",
        "module.py:module.py",
        "--out",
        "out.bin:got.bin",
        script,
    ]);
    let ended = lab.firelane(&args);
    assert_eq!(
        (ended.code, ended.stdout.as_str()),
        (0, "42\n"),
        "{ended:?}"
    );
    assert_eq!(
        fs::read(lab.path().join("got.bin")).unwrap(),
        [0, 1, 0xff].repeat(100_000)
    );
}

#[test]
fn a_file_that_is_not_there_afterwards_is_named() {
    let lab = Lab::new();
    let ended = lab.firelane(&with(&[
        "--out",
        "nothing:got",
        "--lang",
        "bash",
        "-c",
        "echo ran",
    ]));
    assert_eq!(
        (ended.code, ended.stdout.as_str()),
        (125, "ran\n"),
        "{ended:?}"
    );
    assert!(ended.stderr.contains("cannot fetch nothing"), "{ended:?}");
    assert!(!lab.path().join("got").exists());
}

#[test]
fn files_stay_in_the_folders_they_may_be_in() {
    let lab = Lab::new();
    lab.file("x", "x");
    for guest in ["/etc/passwd", "../etc/passwd", "/work/../etc/passwd"] {
        let file = format!("x:{guest}");
        let ended = lab.firelane(&with(&["--file", &file, "--lang", "bash", "-c", "true"]));
        assert_eq!(ended.code, 2, "{ended:?}");
        assert!(ended.stderr.contains("is not under /work"), "{ended:?}");
    }
    let link = "ln -s /etc/passwd link; ln -s / root";
    for out in ["link", "root/etc/passwd"] {
        let out = format!("{out}:got");
        let ended = lab.firelane(&with(&["--out", &out, "--lang", "bash", "-c", link]));
        assert_eq!(ended.code, 125, "{ended:?}");
        assert!(!lab.path().join("got").exists(), "{ended:?}");
    }
}

#[test]
fn the_environment_is_the_programs_own() {
    let lab = Lab::new();
    let args = with(&[
        "--env",
        "A=1=2",
        "--env",
        "LANG=",
        "--lang",
        "bash",
        "-c",
        "echo \"$A|$LANG|$HOME|$(pwd)|$(id -u)\"",
    ]);
    let ended = lab.firelane(&args);
    assert_eq!(ended.stdout, "1=2||/home/user|/work|1000\n", "{ended:?}");
}

#[test]
fn the_time_limit_is_124() {
    let lab = Lab::new();
    let ended = lab.firelane(&with(&[
        "--timeout",
        "5s",
        "--lang",
        "bash",
        "-c",
        "echo before; sleep 100",
    ]));
    assert_eq!(
        (ended.code, ended.stdout.as_str()),
        (124, "before\n"),
        "{ended:?}"
    );
    assert_eq!(ended.stderr, "firelane: killed at the time limit of 5s\n");
    lab.assert_empty();
}

#[test]
fn signals_are_told_as_a_shell_tells_them() {
    let lab = Lab::new();
    let report = lab.run_json("bash", "kill -SEGV $$", &[]);
    assert_eq!(
        (&report["exit_code"], &report["signal"]),
        (&139.into(), &11.into())
    );
}

#[test]
fn several_runs_at_once_do_not_meet() {
    let lab = Lab::new();
    std::thread::scope(|scope| {
        let runs: Vec<_> = (0..3)
            .map(|number| {
                let lab = &lab;
                scope.spawn(move || {
                    let code =
                        format!("echo {number} > /tmp/x; sleep 1; cat /tmp/x; ls /tmp | wc -l");
                    lab.firelane(&with(&["--lang", "bash", "-c", &code]))
                })
            })
            .collect();
        for (number, run) in runs.into_iter().enumerate() {
            let ended = run.join().unwrap();
            assert_eq!(ended.stdout, format!("{number}\n1\n"), "{ended:?}");
        }
    });
    lab.assert_empty();
}

#[test]
fn the_guest_sees_only_the_loopback_interface() {
    let lab = Lab::new();
    let report = lab.run_json(
        "bash",
        "tail -n +3 /proc/net/dev | cut -d: -f1; cat /proc/net/route | wc -l",
        &[],
    );
    assert_eq!(report["stdout"], "    lo\n1\n");
    let code = "import socket\n\
                s = socket.create_server(('127.0.0.1', 0)); print(socket.create_connection(s.getsockname()).getpeername()[0])\n\
                try: socket.create_connection(('192.0.2.1', 80), 2)\n\
                except OSError as e: print(e.errno)";
    let report = lab.run_json("python", code, &["--seccomp", "network"]);
    assert_eq!(report["stdout"], "127.0.0.1\n101\n");
}

#[test]
fn two_processors_are_two() {
    let lab = Lab::new();
    let report = lab.run_json("bash", "nproc", &["--vcpus", "2"]);
    assert_eq!(report["stdout"], "2\n");
}

#[test]
fn a_reader_that_is_slower_than_every_limit_loses_nothing() {
    let lab = Lab::new();
    // More than the windows pass on, and little enough for the program to end all the same.
    let code = "printf 'first\\n'; head -c 600000 /dev/zero | tr '\\0' x";
    let command = lab.command(&with(&["--lang", "bash", "-c", code]));
    let mut running = Running::start(command, b"");
    assert_eq!(running.line(), "first\n");
    // Longer than a killed tree may take to disappear: the time is the condition, there is no
    // state to wait for.
    std::thread::sleep(std::time::Duration::from_secs(16));
    let ended = running.end();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert_eq!(ended.stdout.len(), 600_000, "{}", ended.stderr);
}

#[test]
fn a_reader_that_leaves_ends_the_run() {
    let lab = Lab::new();
    let command = lab.command(&with(&["--lang", "bash", "-c", "while :; do echo y; done"]));
    let mut running = Running::start(command, b"");
    assert_eq!(running.line(), "y\n");
    let ended = running.leave();
    assert_eq!(ended.code, 141, "{ended:?}");
    lab.assert_empty();
}
