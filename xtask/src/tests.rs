//! `cargo xtask test`: every test, with what the tests need made first.
//!
//! Needs are the programs, side by side, and two built templates. firelane is built as its tests are, so that
//! nothing is compiled twice; `.ci/run` also tries the one that users get. Everything stays below the target
//! directory, except the run directory: a Unix socket's path has at most 107 bytes, and nobody knows how deep
//! the checkout is.
//!
//! | variable | default |
//! | --- | --- |
//! | `FIRELANE_HOME` | `firelane-home` in the target directory |
//! | `FIRELANE_RUN_DIR` | `/tmp/firelane-test-<uid>` |
//! | `FIRELANE_TEST_CACHE` | `cache` in `FIRELANE_HOME` |
//! | `FIRELANE_BIN_DIR` | the folder of the programs that were just built |
//! | `FIRELANE_GUEST` | the guest-runner there |

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::build::{self, GUEST, Profile};
use crate::program::{on_path, run, succeeds};
use crate::workspace::{Workspace, cargo};

/// Templates that tests run in: the small one, where the language does not matter.
const TEMPLATES: [&str; 2] = ["base", "default"];
/// Without nextest nothing ends a test that hangs; then the whole run is.
const CARGO_TEST_LIMIT: &str = "40m";
/// Tests that run at once without nextest, which would bound only those that boot microVMs.
const CARGO_TEST_THREADS: &str = "--test-threads=2";

/// Builds, then runs every test; `args` go to the test runner.
pub(crate) fn run_all(workspace: &Workspace, args: &[&str]) -> Result<()> {
    let environment = Environment::new(workspace)?;
    heading("building firelane and the guest-runner");
    build::build(workspace, Profile::Debug)?;
    for template in TEMPLATES {
        heading(&format!("building the template {template}"));
        let mut firelane = Command::new(environment.bin.join("firelane"));
        run(environment.set(firelane.args(["template", "build", template])))?;
    }
    if args.is_empty() {
        heading("doc tests");
        run(environment.set(cargo().args(["test", "--quiet", "--workspace", "--doc"])))?;
    }
    heading("tests");
    let tested = if succeeds(cargo().args(["nextest", "--version"])) {
        let mut nextest = cargo();
        nextest
            .args(["nextest", "run"])
            .args(packages(args))
            .args(args);
        run(environment.set(&mut nextest))
    } else {
        println!(
            "cargo-nextest is not installed: cargo test runs the tests, and ends after {CARGO_TEST_LIMIT} at the latest"
        );
        run(environment.set(&mut cargo_test(args)))
    };
    let tested = tested.and_then(|()| real_firecracker(&environment, args));
    // Empty unless a test left something: then it stays for whoever looks into that.
    let _ = fs::remove_dir(&environment.run_dir);
    tested
}

/// The conformance suite on a real Firecracker, where one is named.
fn real_firecracker(environment: &Environment, args: &[&str]) -> Result<()> {
    const NAMES: [&str; 2] = ["FIRELANE_FIRECRACKER", "FIRELANE_JAILER"];
    if !args.is_empty() {
        return Ok(());
    }
    let missing = NAMES
        .into_iter()
        .find(|name| std::env::var_os(name).is_none());
    if let Some(name) = missing {
        println!(
            "SKIP conformance::real_firecracker_in_our_jail, conformance::real_firecracker_in_its_jailer, \
             the same with paged memory, and hostd::bare: {name} names no program"
        );
        return Ok(());
    }
    heading("conformance on a real Firecracker");
    let mut command = cargo();
    command.args([
        "test",
        "--package",
        "firelane-testkit",
        "--test",
        "conformance",
        "--test",
        "hostd",
    ]);
    command.args(["--", "--ignored", CARGO_TEST_THREADS]);
    run(environment.set(&mut command))
}

fn cargo_test(args: &[&str]) -> Command {
    let mut command = cargo();
    if let Some(timeout) = on_path("timeout") {
        let cargo = command.get_program().to_owned();
        command = Command::new(timeout);
        command.args(["--foreground", CARGO_TEST_LIMIT]).arg(cargo);
    }
    command.args(["test", "--tests"]).args(packages(args));
    command.args(args).arg("--").arg(CARGO_TEST_THREADS);
    command
}

/// Every package, unless `args` choose some: cargo would test all of them beside.
fn packages(args: &[&str]) -> Option<&'static str> {
    let chosen = args
        .iter()
        .any(|arg| arg.starts_with("-p") || arg.starts_with("--package"));
    (!chosen).then_some("--workspace")
}

/// What tests read from the environment; a variable that is set already stays.
struct Environment {
    home: PathBuf,
    run_dir: PathBuf,
    cache: PathBuf,
    bin: PathBuf,
    guest: PathBuf,
}

impl Environment {
    fn new(workspace: &Workspace) -> Result<Environment> {
        let named = |name: &str| {
            let value = std::env::var_os(name).filter(|value| !value.is_empty())?;
            // Tests run in the folder of their crate.
            Some(workspace.root.join(value))
        };
        let uid = fs::metadata("/proc/self")
            .context("cannot read /proc")?
            .uid();
        let home = named("FIRELANE_HOME").unwrap_or_else(|| workspace.target.join("firelane-home"));
        let bin = named("FIRELANE_BIN_DIR").unwrap_or_else(|| workspace.bin("debug"));
        Ok(Environment {
            run_dir: named("FIRELANE_RUN_DIR")
                .unwrap_or_else(|| format!("/tmp/firelane-test-{uid}").into()),
            cache: named("FIRELANE_TEST_CACHE").unwrap_or_else(|| home.join("cache")),
            guest: named("FIRELANE_GUEST").unwrap_or_else(|| bin.join(GUEST)),
            home,
            bin,
        })
    }

    fn set<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command
            .env("FIRELANE_HOME", &self.home)
            .env("FIRELANE_RUN_DIR", &self.run_dir)
            .env("FIRELANE_TEST_CACHE", &self.cache)
            .env("FIRELANE_BIN_DIR", &self.bin)
            .env("FIRELANE_GUEST", &self.guest)
    }
}

fn heading(text: &str) {
    println!("==> {text}");
}
