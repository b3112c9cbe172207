//! The outcome as JSON, and the timeline as text.

use std::collections::BTreeMap;
use std::time::Duration;

use firelane_guest_proto::Lang;
use firelane_guest_proto::message::Outcome;
use firelane_vmm::driver::{Acceleration, DriverKind};
use firelane_vmm::timeline::Timeline;
use firelane_wire::content::text;
use serde::Serialize;

/// The object that `--json` prints. Fields are added, never removed or given another meaning.
#[derive(Debug, Serialize)]
struct Report<'a> {
    trace_id: &'a str,
    lang: Lang,
    interpreter: &'a str,
    /// What the program wrote; bytes that are not UTF-8 are replaced, and the twin is exact.
    stdout: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    stdout_base64: Option<String>,
    stderr: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    stderr_base64: Option<String>,
    exit_code: i32,
    signal: Option<i32>,
    timed_out: bool,
    out_of_memory: bool,
    truncated: bool,
    driver: &'static str,
    acceleration: String,
    timings: Timings,
}

/// Milliseconds.
#[derive(Debug, Serialize)]
struct Timings {
    /// From the start of the run to each phase.
    phases: BTreeMap<&'static str, f64>,
    /// What the program itself took, as the guest tells.
    program_ms: f64,
    cpu_ms: f64,
    /// Highest memory use of the program, in bytes.
    peak_memory_bytes: u64,
}

/// The report as one line of JSON.
pub(crate) fn to_json(
    trace_id: &str,
    lang: Lang,
    outcome: &Outcome,
    (stdout, stderr): (Vec<u8>, Vec<u8>),
    timeline: &Timeline,
    (driver, acceleration): (DriverKind, Acceleration),
) -> serde_json::Result<String> {
    let (stdout, stdout_base64) = text(stdout);
    let (stderr, stderr_base64) = text(stderr);
    serde_json::to_string(&Report {
        trace_id,
        lang,
        interpreter: &outcome.interpreter,
        stdout,
        stdout_base64,
        stderr,
        stderr_base64,
        exit_code: outcome.exit_code(),
        signal: outcome.signal(),
        timed_out: outcome.timed_out,
        out_of_memory: outcome.out_of_memory,
        truncated: outcome.stdout_truncated || outcome.stderr_truncated,
        driver: driver.name(),
        acceleration: acceleration.to_string(),
        timings: Timings {
            phases: timeline
                .marks()
                .iter()
                .map(|(phase, at)| (phase.name(), ms(*at)))
                .collect(),
            program_ms: us(outcome.wall_us),
            cpu_ms: us(outcome.cpu_us),
            peak_memory_bytes: outcome.peak_memory_bytes,
        },
    })
}

/// Prints when each phase was reached, and how long it took, on stderr.
pub(crate) fn print_timings(timeline: &Timeline) {
    let mut before = Duration::ZERO;
    for (phase, at) in timeline.marks() {
        eprintln!(
            "{:>12}  {:>9.1} ms  (+{:.1} ms)",
            phase.name(),
            ms(*at),
            ms(*at - before)
        );
        before = *at;
    }
}

fn ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

fn us(us: u64) -> f64 {
    us as f64 / 1e3
}
