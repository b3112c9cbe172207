//! Shows that the filters do what they are for: on any Linux, with or without KVM, and without a microVM.
//!
//! For each tier and profile this program is executed again behind the filter, as a program of a guest is, and
//! makes the calls of `probe`. They are made once without a filter as well: what the kernel refuses anyway
//! says nothing of a filter.

#![expect(unsafe_code, reason = "the filter is installed between fork and exec")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Output, Stdio};

use firelane_guest_proto::Tier;

use super::Filter;
use super::filter::Profile;
use super::probe::{Answer, PROBES};

/// How the lines begin that it prints.
const LINE: &str = "probe ";
/// The first argument of the program that makes the calls.
pub(crate) const PROBE: &str = "__probe";

/// What was found, and whether all filters hold.
pub(crate) struct Verdict {
    /// One JSON object:
    ///
    /// ```text
    /// {"filters": [{"tier", "profile", "instructions", "probes": [{"name", "expected", "found", "without", "holds"}]}]}
    /// ```
    ///
    /// `expected` and `found` are `allowed`, `killed`, or an error's name or number; `without` is what the kernel
    /// says where there is no filter.
    pub(crate) report: String,
    pub(crate) holds: bool,
}

/// Tries every filter.
pub(crate) fn verify() -> io::Result<Verdict> {
    let without = answers(&run(None, None)?)?;
    let mut holds = true;
    let mut filters = Vec::new();
    for tier in Tier::ALL {
        for profile in Profile::ALL {
            let filter = Filter::of(tier, profile.0);
            let rows = examine(filter, tier, profile, &without)?;
            holds &= rows.iter().all(Row::holds);
            let rows: Vec<String> = rows.iter().map(Row::json).collect();
            filters.push(format!(
                "{{\"tier\":\"{tier}\",\"profile\":\"{}\",\"instructions\":{},\"probes\":[{}]}}",
                profile.name(),
                filter.length(),
                rows.join(",")
            ));
        }
    }
    let report = format!("{{\"filters\":[{}]}}", filters.join(","));
    Ok(Verdict { report, holds })
}

/// One line of the report.
struct Row {
    name: &'static str,
    expected: String,
    found: String,
    without: String,
}

impl Row {
    fn holds(&self) -> bool {
        self.expected == self.found
    }

    fn json(&self) -> String {
        let mut text = String::from("{");
        for (name, value) in [
            ("name", self.name),
            ("expected", &self.expected),
            ("found", &self.found),
            ("without", &self.without),
        ] {
            // None of them has a character that JSON would write otherwise; a string takes everything.
            let _ = write!(text, "\"{name}\":\"{value}\",");
        }
        let _ = write!(text, "\"holds\":{}}}", self.holds());
        text
    }
}

fn examine(
    filter: Filter,
    tier: Tier,
    profile: Profile,
    without: &BTreeMap<String, i32>,
) -> io::Result<Vec<Row>> {
    let found = answers(&run(Some(filter), None)?)?;
    let value = |answers: &BTreeMap<String, i32>, name: &str| {
        let missing = || io::Error::other(format!("there is no answer to {name}"));
        answers.get(name).copied().ok_or_else(missing)
    };
    let mut rows = Vec::new();
    // The calls are made after an exec: that these hold there shows that it survives one.
    for (name, expected) in [("NoNewPrivs", 1), ("Seccomp", 2)] {
        rows.push(Row {
            name,
            expected: expected.to_string(),
            found: value(&found, name)?.to_string(),
            without: value(without, name)?.to_string(),
        });
    }
    for probe in &PROBES {
        let (found, without) = (value(&found, probe.name)?, value(without, probe.name)?);
        let (expected, found) = match probe.expected(tier, profile) {
            Answer::Errno(errno) => (say(errno), say(found)),
            // The kernel's own answer then, whatever that is.
            Answer::Allowed if found == without => ("allowed".into(), "allowed".into()),
            Answer::Allowed => ("allowed".into(), say(found)),
        };
        rows.push(Row {
            name: probe.name,
            expected,
            found,
            without: say(without),
        });
    }
    for how in ["x32", "i386"] {
        rows.push(Row {
            name: how,
            expected: "killed".into(),
            found: end(how, &run(Some(filter), Some(how))?),
            without: end(how, &run(None, Some(how))?),
        });
    }
    Ok(rows)
}

/// Executes this program behind a filter, to make the calls.
fn run(filter: Option<Filter>, how: Option<&str>) -> io::Result<Output> {
    let mut command = Command::new("/proc/self/exe");
    command.env_clear().stdin(Stdio::null());
    to_probe(&mut command, how);
    if let Some(filter) = filter {
        // SAFETY: between fork and exec these are two system calls on constants.
        unsafe {
            command.pre_exec(move || {
                rustix::thread::set_no_new_privs(true)?;
                filter.install()
            });
        }
    }
    command.output()
}

#[cfg(not(test))]
fn to_probe(command: &mut Command, how: Option<&str>) {
    command.arg(PROBE).args(how);
}

/// This program is the tests then, and one of them makes the calls.
#[cfg(test)]
fn to_probe(command: &mut Command, how: Option<&str>) {
    command
        .args(["--exact", "--ignored", "--nocapture", super::tests::CALLS])
        .env(PROBE, how.unwrap_or_default());
}

/// The lines of a probe's output.
fn answers(output: &Output) -> io::Result<BTreeMap<String, i32>> {
    let said = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let wrong = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(format!(
            "the program that makes the calls ended with {}: {}",
            output.status,
            wrong.trim_end()
        )));
    }
    said.lines()
        .filter_map(|line| line.strip_prefix(LINE))
        .map(|line| {
            let (name, value) = line.split_once('=').unwrap_or((line, ""));
            let value = value.parse().map_err(io::Error::other)?;
            Ok((name.to_owned(), value))
        })
        .collect()
}

/// How a call by other numbers ended.
fn end(how: &str, output: &Output) -> String {
    match output.status.signal() {
        Some(libc::SIGSYS) => "killed".into(),
        // Nor is there anything that a filter would have to stop.
        Some(libc::SIGSEGV) if how == "i386" => "killed".into(),
        Some(signal) => format!("signal {signal}"),
        None => "it lives".into(),
    }
}

fn say(errno: i32) -> String {
    match errno {
        0 => "allowed".into(),
        libc::EPERM => "EPERM".into(),
        libc::ENOSYS => "ENOSYS".into(),
        other => format!("errno {other}"),
    }
}
