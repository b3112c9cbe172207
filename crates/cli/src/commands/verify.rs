//! `firelane verify`: shows that a control does what it is for.
//!
//! The seccomp filters are the guest-runner's, so it is what makes the calls behind them, as an ordinary program
//! of this machine.

use serde::{Deserialize, Serialize};
use tokio::process::Command;

use crate::args::{VerifyArgs, VerifyCommand};
use crate::commands::lane;
use crate::failure::Failure;
use crate::host::guest_runner;
use crate::say::say;

/// Exit code when a filter answers otherwise than it should.
const BROKEN: u8 = 1;

/// What the guest-runner found.
#[derive(Debug, Serialize, Deserialize)]
struct Report {
    filters: Vec<Filter>,
}

/// One filter.
#[derive(Debug, Serialize, Deserialize)]
struct Filter {
    tier: String,
    /// A language, or `command`.
    profile: String,
    /// Its length.
    instructions: u32,
    probes: Vec<Probe>,
}

/// One call behind it, or what the kernel says of the process.
#[derive(Debug, Serialize, Deserialize)]
struct Probe {
    name: String,
    expected: String,
    found: String,
    /// What the kernel says without a filter.
    without: String,
    holds: bool,
}

impl Filter {
    fn holds(&self) -> bool {
        !self.probes.is_empty() && self.probes.iter().all(|probe| probe.holds)
    }

    fn answer(&self, name: &str) -> &str {
        let probe = self.probes.iter().find(|probe| probe.name == name);
        probe.map_or("?", |probe| &probe.found)
    }
}

impl Report {
    fn holds(&self) -> bool {
        !self.filters.is_empty() && self.filters.iter().all(Filter::holds)
    }
}

pub(super) async fn verify(args: VerifyArgs) -> Result<u8, Failure> {
    match (args.command, args.label) {
        (Some(VerifyCommand::Seccomp { json }), _) => seccomp(json).await,
        (None, Some(label)) => lane::verify(&label, args.go_on, args.json).await,
        (None, None) => Err(Failure::usage("say which lane, or `seccomp`")),
    }
}

async fn seccomp(json: bool) -> Result<u8, Failure> {
    let runner = guest_runner()?;
    let output = Command::new(&runner)
        .args(["verify", "seccomp"])
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| {
            Failure::platform(anyhow::Error::new(error).context(format!(
                "cannot start the guest-runner {}",
                runner.display()
            )))
        })?;
    if !matches!(output.status.code(), Some(0 | 1)) {
        let said = String::from_utf8_lossy(&output.stderr);
        let failed = anyhow::anyhow!("{} ({})", said.trim_end(), output.status);
        return Err(Failure::platform(failed).with_remedy(
            "the kernel needs CONFIG_SECCOMP_FILTER, and the guest-runner this version",
        ));
    }
    let report: Report = serde_json::from_slice(&output.stdout).map_err(Failure::platform)?;
    if json {
        let text = serde_json::to_string_pretty(&report).map_err(Failure::platform)?;
        say(text)?;
    } else {
        show(&report)?;
    }
    Ok(if report.holds() { 0 } else { BROKEN })
}

fn show(report: &Report) -> Result<(), Failure> {
    let line = |words: [&str; 7]| {
        let [tier, profile, unix, inet, processes, namespaces, holds] = words;
        let text = format!(
            "{tier:<13} {profile:<9} {unix:<9} {inet:<9} {processes:<10} {namespaces:<11} {holds}"
        );
        say(text.trim_end())
    };
    line([
        "TIER",
        "PROFILE",
        "AF_UNIX",
        "AF_INET",
        "PROCESSES",
        "NAMESPACES",
        "CALLS AS EXPECTED",
    ])?;
    for filter in &report.filters {
        let held = filter.probes.iter().filter(|probe| probe.holds).count();
        line([
            &filter.tier,
            &filter.profile,
            filter.answer("socket AF_UNIX"),
            filter.answer("socket AF_INET"),
            filter.answer("clone of a process"),
            filter.answer("unshare"),
            &format!("{held} of {}", filter.probes.len()),
        ])?;
    }
    for filter in &report.filters {
        for probe in filter.probes.iter().filter(|probe| !probe.holds) {
            let Probe {
                name,
                expected,
                found,
                ..
            } = probe;
            say(format_args!(
                "WRONG: {} for {}: {name} gives {found} and should give {expected}",
                filter.tier, filter.profile
            ))?;
        }
    }
    Ok(())
}
