//! `firelane bench compare`: boot, restore, restore in a VMM that waited, and claim to the first result, and the
//! same snapshot in a QEMU with nothing of ours around it, taken in turns, so that what else the host does
//! strikes all of them. On a noisy host their ratios say more than the numbers.

use firelane_guest_proto::Lang;
use firelane_vmm::timeline::{Phase, Timeline};
use serde::Serialize;

use super::measure::{bare, claim, run, waiting};
use super::report::{Fingerprint, fingerprint, head, keep};
use super::stats::percentiles;
use crate::args::{BenchArgs, MachineArgs};
use crate::failure::Failure;
use crate::host::Host;
use crate::say::say;

/// Milliseconds from the start to the first result, of each run.
#[derive(Debug, Serialize)]
struct Compared {
    benchmark: String,
    host: Fingerprint,
    boot: Vec<f64>,
    bare: Vec<f64>,
    restore: Vec<f64>,
    /// A restore in a VMM that waited for it.
    waiting: Vec<f64>,
    claim: Vec<f64>,
}

pub(super) async fn compare(lang: Lang, args: &BenchArgs) -> Result<u8, Failure> {
    let machine = |cold| MachineArgs {
        cold,
        ..args.machine.clone()
    };
    let (cold, warm) = (
        Host::prepare(&machine(true)).await?,
        Host::prepare(&machine(false)).await?,
    );
    let mut compared = Compared {
        benchmark: format!("compare {lang}"),
        host: fingerprint(&warm, args.machine.memory_mib)?,
        boot: Vec::new(),
        bare: Vec::new(),
        restore: Vec::new(),
        waiting: Vec::new(),
        claim: Vec::new(),
    };
    for number in 0..=args.runs {
        let (boot, bare, restore, waiting, claim) = (
            to_result(&run(&cold, lang).await?)?,
            bare(&warm, lang).await?,
            to_result(&run(&warm, lang).await?)?,
            to_result(&waiting(&warm, lang).await?)?,
            to_result(&claim(&warm, lang).await?)?,
        );
        // The first fills caches that later ones find full.
        if number > 0 {
            compared.boot.push(boot);
            compared.bare.push(bare);
            compared.restore.push(restore);
            compared.waiting.push(waiting);
            compared.claim.push(claim);
        }
    }
    tell(&compared)?;
    keep(&compared, args.json.as_deref())?;
    Ok(0)
}

fn to_result(timeline: &Timeline) -> Result<f64, Failure> {
    let at = timeline.at(Phase::Result).map(|at| at.as_secs_f64() * 1e3);
    at.ok_or_else(|| Failure::platform(anyhow::anyhow!("a run ended without a result")))
}

fn tell(compared: &Compared) -> Result<(), Failure> {
    head(&compared.benchmark, &compared.host)?;
    let runs = compared.boot.len();
    say(format_args!(
        "{:>10} {:>10} {:>10} {:>10}   (ms to the first result, {runs} runs in turns)",
        "", "p50", "p90", "p99"
    ))?;
    let mut medians = Vec::new();
    for (name, values) in [
        ("boot", &compared.boot),
        ("bare", &compared.bare),
        ("restore", &compared.restore),
        ("waiting", &compared.waiting),
        ("claim", &compared.claim),
    ] {
        let [p50, p90, p99] = percentiles(values, [50, 90, 99]);
        say(format_args!(
            "{name:>10} {p50:>10.1} {p90:>10.1} {p99:>10.1}"
        ))?;
        medians.push(p50);
    }
    let [boot, bare, restore, waiting, claim] = medians[..] else {
        unreachable!("one for each row");
    };
    say(format_args!(
        "restore is 1/{:.1} of boot and {:.2} of bare QEMU's; in a VMM that waited 1/{:.1} of boot; claim is 1/{:.1} of restore",
        boot / restore,
        restore / bare,
        boot / waiting,
        restore / claim
    ))
}
