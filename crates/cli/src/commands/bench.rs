//! `firelane bench`: phases of a run, measured on this host.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use firelane_agent::clone::Ready;
use firelane_agent::warm::Warm;
use firelane_agent::workshop::new_id;
use firelane_guest_proto::Lang;
use firelane_guest_proto::message::{ExecSpec, Limits, Program};
use firelane_vmm::driver::Driver;
use firelane_vmm::qemu;
use firelane_vmm::timeline::{Phase, Timeline};
use serde::Serialize;

use crate::args::{BenchArgs, BenchCommand};
use crate::failure::Failure;
use crate::host::{Host, Started, open_session};
use crate::run::{Finished, Output, Request, StdinSource, execute, run_in};
use crate::say::say;

/// Time limit of the program that is measured.
const LIMIT: Duration = Duration::from_secs(120);
/// What it may write.
const OUTPUT_BYTES: u64 = 1 << 20;

/// What the numbers depend on.
#[derive(Debug, Serialize)]
struct Fingerprint {
    cpu: String,
    cpus: usize,
    memory_mib: u64,
    kernel: String,
    qemu: String,
    acceleration: String,
    template: String,
    guest_kernel: String,
    guest_memory_mib: u32,
    firelane: &'static str,
}

/// Everything that is written with `--json`.
#[derive(Debug, Serialize)]
struct Samples {
    benchmark: String,
    host: Fingerprint,
    /// For each run, milliseconds from its start to each phase.
    runs: Vec<BTreeMap<&'static str, f64>>,
}

pub(super) async fn bench(command: BenchCommand) -> Result<u8, Failure> {
    let (benchmark, args) = match &command {
        BenchCommand::Boot(args) => ("boot".into(), args),
        BenchCommand::Run { lang, args } => (format!("run {lang}"), args),
        BenchCommand::Claim { lang, args } => (format!("claim {lang}"), args),
    };
    let host = Host::prepare(&args.machine).await?;
    let mut runs = Vec::new();
    for number in 0..=args.runs {
        let timeline = match &command {
            BenchCommand::Boot(_) => boot(&host).await?,
            BenchCommand::Run { lang, .. } => run(&host, *lang).await?,
            BenchCommand::Claim { lang, .. } => claim(&host, *lang).await?,
        };
        // The first fills caches that later ones find full.
        if number > 0 {
            let ms = |at: Duration| at.as_secs_f64() * 1e3;
            runs.push(
                timeline
                    .marks()
                    .iter()
                    .map(|(phase, at)| (phase.name(), ms(*at)))
                    .collect(),
            );
        }
    }
    let samples = Samples {
        benchmark,
        host: fingerprint(&host, args)?,
        runs,
    };
    print(&samples)?;
    if let Some(path) = &args.json {
        let text = serde_json::to_vec_pretty(&samples).map_err(Failure::platform)?;
        fs::write(path, text).map_err(|error| {
            Failure::platform(
                anyhow::Error::from(error).context(format!("cannot write {}", path.display())),
            )
        })?;
    }
    Ok(0)
}

async fn boot(host: &Host) -> Result<Timeline, Failure> {
    let mut timeline = Timeline::start();
    let vm = host
        .driver
        .boot(&host.machine(&new_id()), &mut timeline)
        .await?;
    let opened = open_session(&*vm).await;
    timeline.mark(Phase::Connected);
    vm.destroy().await.map_err(Failure::platform)?;
    timeline.mark(Phase::Destroyed);
    opened.map(|_| timeline)
}

async fn run(host: &Host, lang: Lang) -> Result<Timeline, Failure> {
    let id = new_id();
    let mut timeline = Timeline::start();
    let mut output = Output::collect();
    let finished = execute(
        host,
        &id,
        request(host, lang, &id),
        &mut output,
        &mut timeline,
    )
    .await?;
    check(&finished, output)?;
    Ok(timeline)
}

/// What a service does: the clone is made and warmed before, and the clock starts with the claim.
async fn claim(host: &Host, lang: Lang) -> Result<Timeline, Failure> {
    let id = new_id();
    let workshop = host.workshop();
    let name = &host.template.manifest().name;
    let prepared = workshop.prepare(name).await.map_err(Failure::platform)?;
    let warm = Warm::make(&workshop, &prepared, lang, &id).await;
    let warm = warm.map_err(Failure::platform)?;
    let mut timeline = Timeline::start();
    let Ready { vm, session } = warm.wake(&mut timeline).await.map_err(Failure::platform)?;
    let mut output = Output::collect();
    let started = Started { vm, session };
    let finished = run_in(
        started,
        request(host, lang, &id),
        &mut output,
        &mut timeline,
    )
    .await?;
    check(&finished, output)?;
    Ok(timeline)
}

fn request(host: &Host, lang: Lang, id: &str) -> Request {
    let source = match lang {
        Lang::Python => "print(6 * 7)",
        Lang::Bash => "echo $((6 * 7))",
        Lang::Node => "console.log(6 * 7)",
        Lang::Ruby => "puts 6 * 7",
        Lang::Rust => "fn main() { println!(\"{}\", 6 * 7) }",
    };
    Request {
        spec: ExecSpec {
            trace_id: id.to_owned(),
            program: Program::Code {
                lang,
                source: source.into(),
                args: Vec::new(),
            },
            env: host.template.manifest().env.clone().into_iter().collect(),
            cwd: None,
            limits: Limits {
                timeout_ms: LIMIT.as_millis() as u64,
                memory_bytes: host.program_memory_bytes(),
                output_bytes: OUTPUT_BYTES,
                ..Limits::default()
            },
            pty: None,
        },
        timeout: LIMIT,
        stdin: StdinSource::Empty,
        files_in: Vec::new(),
        files_out: Vec::new(),
    }
}

fn check(finished: &Finished, output: Output) -> Result<(), Failure> {
    let (stdout, stderr) = output.collected();
    if finished.outcome.exit_code() == 0 && stdout == b"42\n" {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&stderr).into_owned();
    Err(Failure::platform(anyhow::anyhow!(
        "the measured program failed: {stderr}"
    )))
}

fn fingerprint(host: &Host, args: &BenchArgs) -> Result<Fingerprint, Failure> {
    let manifest = host.template.manifest();
    Ok(Fingerprint {
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
        qemu: qemu::version(&host.driver.program).map_err(Failure::platform)?,
        acceleration: host.driver.acceleration().to_string(),
        template: format!("{} {}", manifest.name, &manifest.id[..12]),
        guest_kernel: manifest.kernel.version.clone(),
        guest_memory_mib: args.machine.memory_mib.unwrap_or(manifest.memory_mib),
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

fn print(samples: &Samples) -> Result<(), Failure> {
    let host = &samples.host;
    say(format_args!(
        "{} on {} ({} cpus), Linux {}",
        samples.benchmark, host.cpu, host.cpus, host.kernel
    ))?;
    say(format_args!(
        "QEMU {}, {}; template {}, {} MiB",
        host.qemu, host.acceleration, host.template, host.guest_memory_mib
    ))?;
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

/// The smallest value that at least `percent` of the sorted values do not exceed.
fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::percentile;

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
}
