//! `cargo xtask check`: everything that must hold before a commit.
//!
//! All checks run, so that one pass shows everything that is wrong. A check that this machine has no
//! tool for is reported as SKIP by name, with the reason, and counted.

use std::fmt;
use std::process::Command;
use std::time::Instant;

use anyhow::{Result, bail};

use crate::program::{on_path, run, succeeds};
use crate::workspace::{Workspace, cargo};
use crate::{bpf, openapi, python, tests, tidy};

/// How a check came out.
enum Verdict {
    Passed,
    Failed(anyhow::Error),
    Skipped(String),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Passed => f.write_str("ok"),
            Verdict::Failed(error) => write!(f, "FAILED: {error:#}"),
            Verdict::Skipped(reason) => write!(f, "SKIP: {reason}"),
        }
    }
}

type Check = (&'static str, fn(&Workspace) -> Verdict);

const CHECKS: [Check; 10] = [
    ("format", format),
    ("lints", lints),
    ("tidy", own_rules),
    ("docs", docs),
    ("licences and bans", licences),
    ("eBPF object", bpf_object),
    ("API description", api_description),
    ("API fuzzing", api_fuzzing),
    ("clouds", clouds),
    ("dashboard", dashboard),
];
/// What `cargo xtask test` runs; it takes longer than all the others.
const TESTS: Check = ("tests", all_tests);

/// Runs all checks, or all but the tests.
pub(crate) fn run_all(workspace: &Workspace, with_tests: bool) -> Result<()> {
    let mut verdicts = Vec::new();
    let tests = with_tests.then_some(TESTS);
    for (name, check) in CHECKS.into_iter().chain(tests) {
        println!("==> {name}");
        let started = Instant::now();
        let verdict = check(workspace);
        println!(
            "{name}: {verdict} ({:.1} s)",
            started.elapsed().as_secs_f64()
        );
        verdicts.push((name, verdict));
    }
    println!();
    for (name, verdict) in &verdicts {
        println!("{name:<18} {verdict}");
    }
    let count = |wanted: fn(&Verdict) -> bool| {
        verdicts
            .iter()
            .filter(|(_, verdict)| wanted(verdict))
            .count()
    };
    let failed = count(|verdict| matches!(verdict, Verdict::Failed(_)));
    println!(
        "checks: {} passed, {failed} failed, {} skipped",
        count(|verdict| matches!(verdict, Verdict::Passed)),
        count(|verdict| matches!(verdict, Verdict::Skipped(_))),
    );
    if failed > 0 {
        bail!("{failed} of {} checks failed", verdicts.len());
    }
    Ok(())
}

impl From<Result<()>> for Verdict {
    fn from(done: Result<()>) -> Verdict {
        match done {
            Ok(()) => Verdict::Passed,
            Err(error) => Verdict::Failed(error),
        }
    }
}

/// Runs `cargo <subcommand> <args>`, if cargo has that subcommand here.
fn cargo_tool(subcommand: &str, args: &[&str], remedy: &str) -> Verdict {
    if !succeeds(cargo().args([subcommand, "--version"])) {
        return Verdict::Skipped(format!("cargo {subcommand} is not installed ({remedy})"));
    }
    run(cargo().arg(subcommand).args(args)).into()
}

fn format(_: &Workspace) -> Verdict {
    cargo_tool("fmt", &["--all", "--check"], "rustup component add rustfmt")
}

fn lints(_: &Workspace) -> Verdict {
    let args = [
        "--quiet",
        "--workspace",
        "--all-targets",
        "--all-features",
        "--",
        "--deny=warnings",
    ];
    cargo_tool("clippy", &args, "rustup component add clippy")
}

fn own_rules(workspace: &Workspace) -> Verdict {
    tidy::run(workspace).into()
}

fn docs(_: &Workspace) -> Verdict {
    let mut command = cargo();
    command.args(["doc", "--quiet", "--workspace", "--no-deps"]);
    command.args(["--document-private-items"]);
    command.env("RUSTDOCFLAGS", "--deny=warnings");
    run(&mut command).into()
}

/// Advisories are left out: their database has to be fetched, and a check must not depend on that.
fn licences(_: &Workspace) -> Verdict {
    let args = [
        "--log-level=warn",
        "--all-features",
        "check",
        "bans",
        "licenses",
        "sources",
    ];
    cargo_tool("deny", &args, "cargo install --locked cargo-deny")
}

/// The object is the same only with the same compiler.
fn bpf_object(workspace: &Workspace) -> Verdict {
    match bpf::compare(workspace) {
        Ok(bpf::Compared::Same) => Verdict::Passed,
        Ok(bpf::Compared::OtherCompiler(reason)) => Verdict::Skipped(reason),
        Err(error) => Verdict::Failed(error),
    }
}

/// That it is what the types say is a test of the gateway.
fn api_description(workspace: &Workspace) -> Verdict {
    match python::program(workspace, "openapi-spec-validator", "0.9.0") {
        Ok(program) => run(Command::new(program).arg(workspace.root.join(openapi::FILE))).into(),
        Err(reason) => Verdict::Skipped(format!("{reason:#}")),
    }
}

fn api_fuzzing(workspace: &Workspace) -> Verdict {
    let program = match python::program(workspace, "schemathesis", "4.32.5") {
        Ok(program) => program,
        Err(reason) => return Verdict::Skipped(format!("{reason:#}")),
    };
    let mut test = cargo();
    test.args(["test", "--quiet", "--package=firelane-cli", "--test=api"]);
    test.args(["fuzz", "--", "--ignored"]);
    run(test.env("FIRELANE_SCHEMATHESIS", program)).into()
}

/// moto is a stand-in for AWS that others wrote; boto3, which reads back what was made, comes with it. hcloud
/// is Hetzner's own client, for the cloud that we wrote; a description of Hetzner's API, which others wrote,
/// is not brought by this.
fn clouds(workspace: &Workspace) -> Verdict {
    let moto = python::program_of(workspace, "moto_server", "moto[server,ec2]", "5.2.5");
    let hcloud = python::with(workspace, &["hcloud==2.27.0", "jsonschema==4.26.0"]);
    let (moto, hcloud) = match (moto, hcloud) {
        (Ok(moto), Ok(hcloud)) => (moto, hcloud),
        (Err(reason), _) | (_, Err(reason)) => return Verdict::Skipped(format!("{reason:#}")),
    };
    let mut test = cargo();
    test.args(["test", "--quiet", "--package=firelane-testkit"]);
    test.args(["--test=clouds", "--", "--ignored"]);
    if std::env::var_os("FIRELANE_SPECS").is_none_or(|folder| folder.is_empty()) {
        println!("skipped: hetzner::published: FIRELANE_SPECS names no folder with hetzner.json");
        test.arg("--skip=hetzner::published");
    }
    test.env("FIRELANE_MOTO", moto)
        .env("FIRELANE_HCLOUD", hcloud);
    run(&mut test).into()
}

/// A browser is too large to be a need of every machine that runs the tests.
fn dashboard(_: &Workspace) -> Verdict {
    if on_path("chromedriver").is_none() {
        let remedy = "apt-get install chromium chromium-driver";
        return Verdict::Skipped(format!("there is no ChromeDriver here ({remedy})"));
    }
    let mut test = cargo();
    test.args(["test", "--quiet", "--package=firelane-cli", "--test=api"]);
    test.args(["dashboard", "--", "--ignored"]);
    run(test.env("FIRELANE_CHROMEDRIVER", "chromedriver")).into()
}

fn all_tests(workspace: &Workspace) -> Verdict {
    tests::run_all(workspace, &[]).into()
}
