//! What is measured: each gives the timeline of one microVM.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use firelane_agent::clone::{self, Ready};
use firelane_agent::warm::Warm;
use firelane_agent::workshop::new_id;
use firelane_guest_proto::Lang;
use firelane_guest_proto::message::{ExecSpec, Limits, Program, RenewSpec, SEED_BYTES};
use firelane_vmm::timeline::{Phase, Timeline};
use rustix::rand::{GetRandomFlags, getrandom};

use crate::failure::Failure;
use crate::host::{Host, Started, open_session};
use crate::run::{Finished, Output, Request, StdinSource, execute, run_in};

/// Time limit of the program that is measured.
const LIMIT: Duration = Duration::from_secs(120);
/// What it may write.
const OUTPUT_BYTES: u64 = 1 << 20;

/// Why there is nothing to restore.
const NO_SNAPSHOT: &str = "a snapshot cannot serve this machine, so there is nothing to restore";

/// A boot, until the guest-runner answers.
pub(super) async fn boot(host: &Host) -> Result<Timeline, Failure> {
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

/// A run in a microVM that is started for it.
pub(super) async fn run(host: &Host, lang: Lang) -> Result<Timeline, Failure> {
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

/// What a service does: the VMM waits already, and the clock starts with the restore.
pub(super) async fn waiting(host: &Host, lang: Lang) -> Result<Timeline, Failure> {
    let id = new_id();
    let Some(machine) = host.clone_machine(&id) else {
        return Err(Failure::usage(NO_SNAPSHOT));
    };
    let files = host.snapshot().await?;
    let mut unseen = Timeline::start();
    let (network, machine) = host.connected(&machine).await?;
    let standing = host.driver.stand_by(&machine, &files, &mut unseen).await?;
    let mut timeline = Timeline::start();
    let vm = standing.restore(&mut timeline).await?;
    let started = started(clone::take_up(vm, network, &id, &files, &mut timeline).await?);
    let mut output = Output::collect();
    let request = request(host, lang, &id);
    let finished = run_in(started, request, &mut output, &mut timeline).await?;
    check(&finished, output)?;
    Ok(timeline)
}

/// What a service does: the clone is made and warmed before, and the clock starts with the claim.
pub(super) async fn claim(host: &Host, lang: Lang) -> Result<Timeline, Failure> {
    let id = new_id();
    let workshop = host.workshop();
    let name = &host.template.manifest().name;
    let prepared = workshop.prepare(name).await.map_err(Failure::platform)?;
    let warm = Warm::make(&workshop, &prepared, lang, &id).await;
    let warm = warm.map_err(Failure::platform)?;
    let mut timeline = Timeline::start();
    let started = started(warm.wake(&mut timeline).await.map_err(Failure::platform)?);
    let mut output = Output::collect();
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

fn started(ready: Ready) -> Started {
    let Ready {
        vm,
        session,
        network,
        ..
    } = ready;
    Started {
        vm,
        session,
        network,
    }
}

/// The same snapshot in a QEMU with nothing of ours around it; milliseconds to the outcome.
pub(super) async fn bare(host: &Host, lang: Lang) -> Result<f64, Failure> {
    let id = new_id();
    let Some(qemu) = &host.qemu else {
        let message = "there is only a bare QEMU to compare with: give --driver qemu";
        return Err(Failure::usage(message));
    };
    let Some(machine) = host.clone_machine(&id) else {
        return Err(Failure::usage(NO_SNAPSHOT));
    };
    let files = host.snapshot().await?;
    let mut seed = [0; SEED_BYTES];
    getrandom(&mut seed, GetRandomFlags::empty()).map_err(Failure::platform)?;
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let renew = RenewSpec {
        seed: seed.into(),
        realtime_ns: since.map_or(0, |since| since.as_nanos() as u64),
        hostname: "bare".into(),
        machine_id: [1; 16],
    };
    let exec = request(host, lang, &id).spec;
    let ran = qemu.bare(&machine, &files, &renew, &exec).await;
    let (took, outcome) = ran.map_err(Failure::platform)?;
    if outcome.exit_code() != 0 {
        let code = outcome.exit_code();
        let failed = anyhow::anyhow!("the measured program ended with exit code {code}");
        return Err(Failure::platform(failed));
    }
    Ok(took.as_secs_f64() * 1e3)
}

/// A program that prints `42`.
pub(super) fn source(lang: Lang) -> &'static str {
    match lang {
        Lang::Python => "print(6 * 7)",
        Lang::Bash => "echo $((6 * 7))",
        Lang::Node => "console.log(6 * 7)",
        Lang::Ruby => "puts 6 * 7",
        Lang::Rust => "fn main() { println!(\"{}\", 6 * 7) }",
    }
}

pub(super) fn request(host: &Host, lang: Lang, id: &str) -> Request {
    Request {
        spec: ExecSpec {
            trace_id: id.to_owned(),
            program: Program::Code {
                lang,
                source: source(lang).into(),
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

pub(super) fn check(finished: &Finished, output: Output) -> Result<(), Failure> {
    let (stdout, stderr) = output.collected();
    if finished.outcome.exit_code() == 0 && stdout == b"42\n" {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&stderr).into_owned();
    Err(Failure::platform(anyhow::anyhow!(
        "the measured program failed: {stderr}"
    )))
}
