//! Runs per second that gateway, coordinator and database carry, with a host that has every outcome
//! at once: `cargo bench -p firelane-cli --bench gateway`.
//!
//! It is no part of the command, which must not ship a host that pretends. Everything else is what
//! `firelane serve` is made of: HTTP with keys, the Bus, the database on a disk, a line of the log for
//! each run. Clients wait for their runs over connections that stay open, and share the processors
//! with the service; what they take is told. A request that touches nothing is measured beside it.
//!
//! A run that is waited for is put on record after its answer, so there are two rates: that of the
//! answers, and that until the last record was on disk, which is what lasts.

mod client;
mod host;
mod service;
#[path = "../../src/commands/bench/stats.rs"]
mod stats;

use std::fs::File;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use clap::Parser;
use rustix::time::{ClockId, clock_gettime};

use client::Seen;
use service::Service;

/// Measure the gateway with a host that answers at once
#[derive(Parser)]
struct Args {
    /// Clients at once
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4096))]
    clients: u32,
    /// Requests that are measured
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(100..=10_000_000))]
    requests: u32,
    /// Folder of the database, for the disk that it is on [default: that of temporary files]
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// Given by 'cargo bench'
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let base = args.folder.clone().unwrap_or_else(std::env::temp_dir);
    let folder = tempfile::tempdir_in(base)?;
    let log = File::create(folder.path().join("log"))?;
    tracing_subscriber::fmt()
        .with_env_filter("warn,firelane::run=info")
        .with_writer(Mutex::new(log))
        .init();
    // As many threads as `firelane serve` has.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let ended = runtime.block_on(async {
        tokio::select! {
            measured = measure(&args, folder.path()) => measured,
            _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
        }
    });
    // Clients that are under way end when their connections do.
    runtime.shutdown_background();
    ended
}

async fn measure(args: &Args, folder: &std::path::Path) -> anyhow::Result<()> {
    println!(
        "{} clients, {} requests each; milliseconds",
        args.clients, args.requests
    );
    println!(
        "{:>10} {:>9} {:>8} {:>8} {:>8} {:>9} {:>12} {:>12}",
        "", "each s", "p50", "p95", "p99", "lasting", "us of CPU", "of clients"
    );
    let nothing = one(args, folder, Kind::Health).await?;
    let runs = one(args, folder, Kind::Run).await?;
    println!(
        "a run takes {:.1} times what a request takes that touches nothing",
        nothing / runs
    );
    Ok(())
}

#[derive(Clone, Copy)]
enum Kind {
    Health,
    Run,
}

/// Measures one kind of request against a service of its own; gives its rate.
async fn one(args: &Args, folder: &std::path::Path, kind: Kind) -> anyhow::Result<f64> {
    let folder = tempfile::tempdir_in(folder)?;
    let service = Service::start(folder.path(), args.clients).await?;
    let (name, request) = match kind {
        Kind::Health => ("healthz", get()),
        Kind::Run => ("run", post(&service.token)),
    };
    ask(&service, &request, args.clients, args.requests / 10).await?;
    let (start, cpu) = (Instant::now(), cpu());
    let seen = ask(&service, &request, args.clients, args.requests).await?;
    service.settle().await;
    let (lasting, cpu) = (start.elapsed(), self::cpu().saturating_sub(cpu));
    let count = f64::from(args.requests);
    let [p50, p95, p99] = stats::percentiles(&seen.took_ms, [50, 95, 99]);
    let us = |all: Duration| all.as_secs_f64() * 1e6 / count;
    let rate = count / seen.all.as_secs_f64();
    println!(
        "{name:>10} {rate:>9.0} {p50:>8.2} {p95:>8.2} {p99:>8.2} {:>9.0} {:>12.0} {:>12.0}",
        count / lasting.as_secs_f64(),
        us(cpu.saturating_sub(seen.own_cpu)),
        us(seen.own_cpu)
    );
    Ok(rate)
}

async fn ask(service: &Service, request: &[u8], clients: u32, count: u32) -> anyhow::Result<Seen> {
    let (address, request) = (service.address, request.to_owned());
    let asking = move || client::ask(address, &request, clients, count);
    tokio::task::spawn_blocking(asking).await?
}

fn get() -> Vec<u8> {
    b"GET /healthz HTTP/1.1\r\nhost: bench\r\n\r\n".into()
}

fn post(token: &str) -> Vec<u8> {
    let body = r#"{"lang":"python","code":"print(6 * 7)"}"#;
    let head = format!(
        "POST /v1/runs HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    (head + body).into_bytes()
}

/// Processor time of this process.
fn cpu() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default()
}
