//! `firelane bench`: what runs take, measured on this host.

mod compare;
mod firecracker;
mod measure;
mod memory;
mod paging;
mod report;
mod stats;
mod throughput;

use std::collections::BTreeMap;

use firelane_guest_proto::Lang;

use crate::args::{BenchArgs, BenchCommand};
use crate::failure::Failure;
use crate::host::Host;
use crate::run::interruptible;
use report::{Samples, fingerprint, keep, print};

pub(super) async fn bench(command: BenchCommand) -> Result<u8, Failure> {
    match &command {
        // It ends its service itself.
        BenchCommand::Throughput(args) => throughput::throughput(args).await,
        BenchCommand::Firecracker(args) => interruptible(firecracker::firecracker(args)).await,
        BenchCommand::Paging(args) => interruptible(paging::paging(args)).await,
        BenchCommand::Memory(args) => interruptible(memory::memory(args)).await,
        BenchCommand::Compare { lang, args } => interruptible(compare::compare(*lang, args)).await,
        BenchCommand::Boot(args) => phases("boot".into(), Measured::Boot, args).await,
        BenchCommand::Run { lang, args } => {
            phases(format!("run {lang}"), Measured::Run(*lang), args).await
        }
        BenchCommand::Claim { lang, args } => {
            phases(format!("claim {lang}"), Measured::Claim(*lang), args).await
        }
    }
}

/// What the phases of are measured.
#[derive(Clone, Copy)]
enum Measured {
    Boot,
    Run(Lang),
    Claim(Lang),
}

async fn phases(benchmark: String, what: Measured, args: &BenchArgs) -> Result<u8, Failure> {
    interruptible(async {
        let host = Host::prepare(&args.machine).await?;
        let runs = sample(&host, what, args.runs).await?;
        let samples = Samples {
            benchmark,
            host: fingerprint(&host, args.machine.memory_mib)?,
            runs,
        };
        print(&samples)?;
        keep(&samples, args.json.as_deref())?;
        Ok(0)
    })
    .await
}

/// The phases of each run, by name.
async fn sample(
    host: &Host,
    what: Measured,
    count: u32,
) -> Result<Vec<BTreeMap<String, f64>>, Failure> {
    let mut runs = Vec::new();
    for number in 0..=count {
        let timeline = match what {
            Measured::Boot => measure::boot(host).await?,
            Measured::Claim(lang) => measure::claim(host, lang).await?,
            Measured::Run(lang) => measure::run(host, lang).await?,
        };
        // The first fills caches that later ones find full.
        if number > 0 {
            runs.push(timeline.in_ms());
        }
    }
    Ok(runs)
}
