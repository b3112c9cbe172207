//! The outcome as JSON, and the phases as text.

use std::collections::BTreeMap;

use firelane_guest_proto::Lang;
use firelane_wire::content::text;
use firelane_wire::network::NetworkSeen;
use serde::Serialize;

use super::Done;

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
    driver: &'a str,
    acceleration: &'a str,
    /// Where the microVM came from: `boot`, `snapshot` or `pool`.
    origin: &'a str,
    timings: Timings<'a>,
    /// What happened in its network, if it had one: see docs/network.md.
    #[serde(skip_serializing_if = "Option::is_none")]
    network: Option<&'a NetworkSeen>,
}

/// Milliseconds.
#[derive(Debug, Serialize)]
struct Timings<'a> {
    /// From the start of the run to each phase.
    phases: &'a BTreeMap<String, f64>,
    /// What the program itself took, as the guest tells.
    program_ms: f64,
    cpu_ms: f64,
    /// Highest memory use of the program, in bytes.
    peak_memory_bytes: u64,
}

/// The report as one line of JSON.
pub(crate) fn to_json(
    lang: Lang,
    (stdout, stderr): (Vec<u8>, Vec<u8>),
    done: &Done,
) -> serde_json::Result<String> {
    let Done { ending, ran, .. } = done;
    let (stdout, stdout_base64) = text(stdout);
    let (stderr, stderr_base64) = text(stderr);
    serde_json::to_string(&Report {
        trace_id: &done.id,
        lang,
        interpreter: &ending.interpreter,
        stdout,
        stdout_base64,
        stderr,
        stderr_base64,
        exit_code: ending.exit_code,
        signal: ending.signal,
        timed_out: ending.timed_out,
        out_of_memory: ending.out_of_memory,
        truncated: ending.stdout_truncated || ending.stderr_truncated,
        driver: &ran.driver,
        acceleration: &ran.acceleration,
        origin: ran.origin.name(),
        timings: Timings {
            phases: &ran.phases_ms,
            program_ms: ending.usage.wall_ms,
            cpu_ms: ending.usage.cpu_ms,
            peak_memory_bytes: ending.usage.peak_memory_bytes,
        },
        network: ran.network.as_ref(),
    })
}

/// Prints when each phase was reached, and how long it took, on stderr.
pub(crate) fn print_timings(phases_ms: &BTreeMap<String, f64>) {
    let mut phases: Vec<(&String, f64)> = phases_ms.iter().map(|(name, ms)| (name, *ms)).collect();
    phases.sort_by(|a, b| a.1.total_cmp(&b.1));
    let mut before = 0.0;
    for (name, at) in phases {
        eprintln!("{name:>12}  {at:>9.1} ms  (+{:.1} ms)", at - before);
        before = at;
    }
}
