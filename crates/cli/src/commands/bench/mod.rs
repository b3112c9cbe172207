//! `firelane bench`: phases of a run, measured on this host.

mod compare;
mod measure;
mod report;
mod stats;

use crate::args::{BenchArgs, BenchCommand};
use crate::failure::Failure;
use crate::host::Host;
use report::{Samples, fingerprint, keep, print};

pub(super) async fn bench(command: BenchCommand) -> Result<u8, Failure> {
    let (benchmark, args) = match &command {
        BenchCommand::Boot(args) => ("boot".into(), args),
        BenchCommand::Run { lang, args } => (format!("run {lang}"), args),
        BenchCommand::Claim { lang, args } => (format!("claim {lang}"), args),
        BenchCommand::Compare { lang, args } => return compare::compare(*lang, args).await,
    };
    let host = Host::prepare(&args.machine).await?;
    let runs = sample(&host, &command, args).await?;
    let samples = Samples {
        benchmark,
        host: fingerprint(&host, args)?,
        runs,
    };
    print(&samples)?;
    keep(&samples, args.json.as_deref())?;
    Ok(0)
}

/// The phases of each run, by name.
async fn sample(
    host: &Host,
    command: &BenchCommand,
    args: &BenchArgs,
) -> Result<Vec<std::collections::BTreeMap<String, f64>>, Failure> {
    let mut runs = Vec::new();
    for number in 0..=args.runs {
        let timeline = match command {
            BenchCommand::Boot(_) => measure::boot(host).await?,
            BenchCommand::Claim { lang, .. } => measure::claim(host, *lang).await?,
            BenchCommand::Run { lang, .. } | BenchCommand::Compare { lang, .. } => {
                measure::run(host, *lang).await?
            }
        };
        // The first fills caches that later ones find full.
        if number > 0 {
            runs.push(timeline.in_ms());
        }
    }
    Ok(runs)
}
