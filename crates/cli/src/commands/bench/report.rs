//! Numbers as text and as JSON, with what they depend on.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;

use serde::Serialize;

use super::stats::percentile;
use crate::failure::Failure;
use crate::host::Host;
use crate::say::say;

/// The host's part of what numbers depend on.
#[derive(Debug, Serialize)]
pub(super) struct Machinery {
    cpu: String,
    cpus: usize,
    memory_mib: u64,
    kernel: String,
}

impl Machinery {
    pub(super) fn of_host() -> Result<Machinery, Failure> {
        Ok(Machinery {
            cpu: first_value("/proc/cpuinfo", "model name")?,
            cpus: std::thread::available_parallelism()
                .map_err(Failure::platform)?
                .get(),
            memory_mib: first_value("/proc/meminfo", "MemTotal")?
                .split_ascii_whitespace()
                .next()
                .and_then(|kib| kib.parse::<u64>().ok())
                .unwrap_or(0)
                / 1024,
            kernel: rustix::system::uname()
                .release()
                .to_string_lossy()
                .into_owned(),
        })
    }
}

impl fmt::Display for Machinery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (cpu, cpus, kernel) = (&self.cpu, self.cpus, &self.kernel);
        write!(f, "{cpu} ({cpus} cpus), Linux {kernel}")
    }
}

/// What the numbers depend on.
#[derive(Debug, Serialize)]
pub(super) struct Fingerprint {
    #[serde(flatten)]
    machinery: Machinery,
    vmm: String,
    acceleration: String,
    template: String,
    guest_kernel: String,
    guest_memory_mib: u32,
    firelane: &'static str,
}

/// Everything that is written with `--json`.
#[derive(Debug, Serialize)]
pub(super) struct Samples {
    pub(super) benchmark: String,
    pub(super) host: Fingerprint,
    /// For each run, milliseconds from its start to each phase.
    pub(super) runs: Vec<BTreeMap<String, f64>>,
}

pub(super) fn fingerprint(host: &Host, memory_mib: Option<u32>) -> Result<Fingerprint, Failure> {
    let manifest = host.template.manifest();
    Ok(Fingerprint {
        machinery: Machinery::of_host()?,
        vmm: host.vmm()?,
        acceleration: host.driver.acceleration().to_string(),
        template: format!("{} {}", manifest.name, &manifest.id[..12]),
        guest_kernel: manifest.kernel.version.clone(),
        guest_memory_mib: memory_mib.unwrap_or(manifest.memory_mib),
        firelane: env!("CARGO_PKG_VERSION"),
    })
}

/// The value of the first `key: value` line of a file.
fn first_value(path: &str, key: &str) -> Result<String, Failure> {
    let text = fs::read_to_string(path).map_err(Failure::platform)?;
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.split_once(':'));
    Ok(value.map_or_else(String::new, |(_, value)| value.trim().into()))
}

/// What was measured, and where.
pub(super) fn head(benchmark: &str, host: &Fingerprint) -> Result<(), Failure> {
    say(format_args!("{benchmark} on {}", host.machinery))?;
    say(format_args!(
        "{}, {}; template {}, {} MiB",
        host.vmm, host.acceleration, host.template, host.guest_memory_mib
    ))
}

/// Writes the raw samples, if a file is named for them.
pub(super) fn keep(samples: &impl Serialize, path: Option<&Path>) -> Result<(), Failure> {
    let Some(path) = path else { return Ok(()) };
    let text = serde_json::to_vec_pretty(samples).map_err(Failure::platform)?;
    fs::write(path, text).map_err(|error| {
        let context = format!("cannot write {}", path.display());
        Failure::platform(anyhow::Error::from(error).context(context))
    })
}

pub(super) fn print(samples: &Samples) -> Result<(), Failure> {
    head(&samples.benchmark, &samples.host)?;
    say(format_args!(
        "{:>12} {:>10} {:>10} {:>10}   (ms from the start, {} runs)",
        "phase",
        "p50",
        "p90",
        "p99",
        samples.runs.len()
    ))?;
    let mut phases: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for run in &samples.runs {
        for (phase, at) in run {
            phases.entry(phase).or_default().push(*at);
        }
    }
    let mut rows: Vec<(&str, Vec<f64>)> = phases.into_iter().collect();
    for (_, values) in &mut rows {
        values.sort_by(f64::total_cmp);
    }
    rows.sort_by(|a, b| percentile(&a.1, 50).total_cmp(&percentile(&b.1, 50)));
    for (phase, values) in rows {
        let [p50, p90, p99] = [50, 90, 99].map(|percent| percentile(&values, percent));
        say(format_args!(
            "{phase:>12} {p50:>10.1} {p90:>10.1} {p99:>10.1}"
        ))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::stats::{percentile, percentiles};

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let values: Vec<f64> = (1..=10).map(f64::from).collect();
        let check = |percent, expected: f64| {
            assert!((percentile(&values, percent) - expected).abs() < 1e-9);
        };
        check(50, 5.0);
        check(90, 9.0);
        check(99, 10.0);
        assert!(percentile(&[], 50).is_nan());
    }

    #[test]
    fn values_may_come_in_any_order() {
        let [p50, p99] = percentiles(&[3.0, 1.0, 2.0], [50, 99]);
        assert!((p50 - 2.0).abs() < 1e-9 && (p99 - 3.0).abs() < 1e-9);
    }
}
