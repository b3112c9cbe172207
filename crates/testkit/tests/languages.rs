//! Every language runs, reads stdin, returns its exit code and keeps bytes as they are.

use firelane_testkit::Lab;

/// One boot shows all of it: the program echoes its input, writes text that is not ASCII and bytes
/// that are not UTF-8, writes to stderr, and exits with 7.
fn check(lang: &str, code: &str) {
    let lab = Lab::new();
    let args = [
        "run",
        "--timeout",
        "120",
        "--lang",
        lang,
        "-c",
        code,
        "one",
        "two words",
    ];
    let ended = lab.firelane_with(&args, "Grüße\n".as_bytes());
    let mut expected = "hello Grüße one,two words ".as_bytes().to_vec();
    expected.extend([0xff, 0x00, 0xfe, b'\n']);
    assert_eq!(ended.stdout_bytes, expected, "{ended:?}");
    assert_eq!(ended.stderr, "careful: ß\n");
    assert_eq!(ended.code, 7);
    lab.assert_empty();
}

#[test]
fn python_runs() {
    check(
        "python",
        r#"
import sys
name = sys.stdin.readline().strip()
out = sys.stdout.buffer
out.write(f"hello {name} {','.join(sys.argv[1:])} ".encode() + b"\xff\x00\xfe\n")
print("careful: ß", file=sys.stderr)
sys.exit(7)
"#,
    );
}

#[test]
fn bash_runs() {
    check(
        "bash",
        r#"
read -r name
printf 'hello %s %s,%s \xff\x00\xfe\n' "$name" "$1" "$2"
echo 'careful: ß' >&2
exit 7
"#,
    );
}

#[test]
fn node_runs() {
    check(
        "node",
        r#"
const name = require("fs").readFileSync(0, "utf8").trim();
const head = Buffer.from(`hello ${name} ${process.argv.slice(2).join(",")} `);
process.stdout.write(Buffer.concat([head, Buffer.from([0xff, 0, 0xfe, 10])]));
process.stderr.write("careful: ß\n");
process.exitCode = 7;
"#,
    );
}

#[test]
fn ruby_runs() {
    check(
        "ruby",
        r#"
name = STDIN.gets.strip
STDOUT.binmode
STDOUT.write("hello #{name} #{ARGV.join(",")} ".b + "\xff\x00\xfe\n".b)
warn "careful: ß"
exit 7
"#,
    );
}

#[test]
fn rust_is_compiled_and_runs() {
    check(
        "rust",
        r#"
use std::io::Write;
fn main() {
    let mut name = String::new();
    std::io::stdin().read_line(&mut name).unwrap();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let mut out = format!("hello {} {} ", name.trim(), args.join(",")).into_bytes();
    out.extend([0xff, 0, 0xfe, 10]);
    std::io::stdout().write_all(&out).unwrap();
    eprintln!("careful: ß");
    std::process::exit(7);
}
"#,
    );
}

#[test]
fn what_rustc_says_is_on_stderr_with_its_exit_code() {
    let lab = Lab::new();
    let ended = lab.firelane(&[
        "run",
        "--timeout",
        "120",
        "--lang",
        "rust",
        "-c",
        "fn main() { 1 + }",
    ]);
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.stderr.contains("main.rs:1:17"), "{ended:?}");
    assert_eq!(ended.stdout, "");
}

#[test]
fn a_missing_interpreter_is_127_and_says_what_was_tried() {
    let lab = Lab::new();
    let ended = lab.firelane(&[
        "run",
        "--template",
        "base",
        "--lang",
        "ruby",
        "-c",
        "puts 1",
    ]);
    assert_eq!(ended.code, 127, "{ended:?}");
    assert!(
        ended
            .stderr
            .contains("no interpreter for ruby in this template (tried ruby)"),
        "{ended:?}"
    );
    lab.assert_empty();
}

#[test]
fn the_outcome_tells_which_python_ran() {
    let lab = Lab::new();
    let report = lab.run_json("python", "print(1)", &[]);
    assert_eq!(report["interpreter"], "/usr/bin/python3");
}

#[test]
fn python2_is_taken_where_there_is_no_python3() {
    let lab = Lab::new();
    // Debian has no python2 any more; what is shown is the choice, not the language.
    lab.file(
        "old.toml",
        "description = \"no python3\"\npackages = [\"bash\", \"coreutils\"]\n\n\
         [files.\"usr/bin/python\"]\ncontent = \"#!/bin/bash\\necho python\\n\"\nmode = 0o755\n\n\
         [files.\"usr/bin/python2\"]\ncontent = \"#!/bin/bash\\necho python2\\n\"\nmode = 0o755\n",
    );
    let built = lab.firelane(&["template", "build", "./old.toml"]);
    assert_eq!(built.code, 0, "{built:?}");
    let args = [
        "run",
        "--json",
        "--template",
        "old",
        "--lang",
        "python",
        "-c",
        "1",
    ];
    let ended = lab.firelane(&args);
    let report: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(report["interpreter"], "/usr/bin/python2", "{report}");
    assert_eq!(report["stdout"], "python2\n", "{report}");
    let removed = lab.firelane(&["template", "rm", "old"]);
    assert_eq!(removed.code, 0, "{removed:?}");
}
