//! `firelane bench firecracker`: what Firelane adds to a restore of Firecracker's, with the bare guest, and
//! what clones take of the host's memory.
//!
//! Each restore is measured from its start to the guest's greeting, in turns, so that what else the host
//! does strikes all of them: raw, by Firelane without a jail, in our jail, in Firecracker's jailer, and in
//! either where the VMM was started before and waits, as in a service. The bare guest does nothing of its own meanwhile, so the difference is ours.

use std::path::{Path, PathBuf};
use std::time::Duration;

use firelane_agent::workshop::new_id;
use firelane_guest_proto::SESSION_PORT;
use firelane_vmm::connect::connect;
use firelane_vmm::driver::{DiskLimits, Driver, Machine, MicroVm, SnapshotFiles};
use firelane_vmm::firecracker::{Firecracker, Jailing, default_jailer};
use firelane_vmm::session::Session;
use firelane_vmm::timeline::Timeline;
use serde::Serialize;
use tempfile::TempDir;
use tokio::time::Instant;

use super::memory::{Taken, of};
use super::report::{Machinery, keep};
use super::stats::percentiles;
use crate::args::FirecrackerArgs;
use crate::drivers;
use crate::failure::Failure;
use crate::host::{bare_guest, sweep};
use crate::say::say;

/// How long each step may take.
const STEP: Duration = Duration::from_secs(30);

#[derive(Debug, Serialize)]
struct Measured {
    benchmark: &'static str,
    host: Machinery,
    firecracker: String,
    sizes: Vec<Size>,
    clones: Vec<Taken>,
}

/// Milliseconds from the start of a restore to the first reply, of each.
#[derive(Debug, Serialize)]
struct Size {
    memory_mib: u32,
    ways: Vec<(&'static str, Vec<f64>)>,
}

pub(super) async fn firecracker(args: &FirecrackerArgs) -> Result<u8, Failure> {
    let Some(firecracker) = drivers::firecracker().await? else {
        let missing = anyhow::anyhow!("Firecracker is not installed");
        let remedy = "name it in FIRELANE_FIRECRACKER, and its jailer in FIRELANE_JAILER";
        return Err(Failure::platform(missing).with_remedy(remedy));
    };
    let firecracker = firecracker.map_err(|error| {
        let remedy = error.remedy();
        Failure::platform(error).with_remedy(remedy)
    })?;
    sweep();
    let kernel = bare_guest()?;
    let folder = tempfile::tempdir().map_err(Failure::platform)?;
    let mut sizes = Vec::new();
    for memory_mib in &args.memory_mib {
        let bench = Bench::make(&firecracker, &kernel, &folder, *memory_mib).await?;
        sizes.push(bench.restores(args.runs).await?);
    }
    let smallest = args.memory_mib.iter().min().copied().unwrap_or(128);
    let bench = Bench::make(&firecracker, &kernel, &folder, smallest).await?;
    let measured = Measured {
        benchmark: "firecracker",
        host: Machinery::of_host()?,
        firecracker: firecracker.version().to_string(),
        sizes,
        clones: bench.clones(args.clones).await?,
    };
    tell(&measured)?;
    keep(&measured, args.json.as_deref())?;
    Ok(0)
}

/// A snapshot of the bare guest, and the ways to restore it.
struct Bench {
    machine: Machine,
    files: SnapshotFiles,
    folder: PathBuf,
    ways: Vec<Way>,
}

/// How a snapshot is restored.
struct Way {
    name: &'static str,
    firecracker: Firecracker,
    /// The VMM waits already when the clock starts.
    waits: bool,
}

impl Bench {
    async fn make(
        firecracker: &Firecracker,
        kernel: &Path,
        folder: &TempDir,
        memory_mib: u32,
    ) -> Result<Bench, Failure> {
        let own = tempfile::tempdir_in(folder)
            .map_err(Failure::platform)?
            .keep();
        let files = SnapshotFiles::new(own.join("memory"), own.join("state"));
        let machine = Machine {
            id: String::new(),
            kernel: kernel.into(),
            initrd: None,
            rootfs: None,
            memory_mib,
            vcpus: 1,
            boot_timeout: STEP,
            snapshot: None,
            network: None,
            disk: DiskLimits::DEFAULT,
        };
        let way = |name, jailing: &Jailing, waits| Way {
            name,
            firecracker: firecracker.with_jailing(jailing.clone()),
            waits,
        };
        let mut ways = vec![
            way("no jail", &Jailing::None, false),
            way("our jail", &Jailing::Ours, false),
            way("ours, waiting", &Jailing::Ours, true),
        ];
        if let Some(jailer) = default_jailer().map(Jailing::Jailer) {
            ways.push(way("jailer", &jailer, false));
            ways.push(way("jailer, waiting", &jailer, true));
        }
        let template = Machine {
            id: new_id(),
            snapshot: Some(files.clone()),
            ..machine.clone()
        };
        // The first way is as good as the others for this.
        let first = &ways[0].firecracker;
        let vm = first.boot(&template, &mut Timeline::start()).await?;
        greet(&*vm).await?;
        vm.snapshot().await.map_err(Failure::platform)?;
        Ok(Bench {
            machine,
            files,
            folder: own,
            ways,
        })
    }

    async fn restores(&self, runs: u32) -> Result<Size, Failure> {
        let names = ["raw"]
            .into_iter()
            .chain(self.ways.iter().map(|way| way.name));
        let mut ways: Vec<(&str, Vec<f64>)> = names.map(|name| (name, Vec::new())).collect();
        for number in 0..=runs {
            let mut took = vec![self.raw().await?];
            for way in &self.ways {
                took.push(self.ours(way).await?);
            }
            // The first fills caches that later ones find full.
            if number > 0 {
                for ((_, values), took) in ways.iter_mut().zip(took) {
                    values.push(took.as_secs_f64() * 1e3);
                }
            }
        }
        Ok(Size {
            memory_mib: self.machine.memory_mib,
            ways,
        })
    }

    async fn raw(&self) -> Result<Duration, Failure> {
        let firecracker = &self.ways[0].firecracker;
        let raw = firecracker.raw(&self.files, &self.folder).await;
        raw.map_err(Failure::platform)
    }

    async fn ours(&self, way: &Way) -> Result<Duration, Failure> {
        let mut begun = Instant::now();
        let vm = match way.waits {
            false => self.restore(&way.firecracker).await?,
            true => {
                let (machine, mut unseen) = (self.named(), Timeline::start());
                let standing = way.firecracker.stand_by(&machine, &self.files, &mut unseen);
                let standing = standing.await?;
                begun = Instant::now();
                standing.restore(&mut unseen).await?
            }
        };
        greet(&*vm).await?;
        let took = begun.elapsed();
        vm.destroy().await.map_err(Failure::platform)?;
        Ok(took)
    }

    fn named(&self) -> Machine {
        Machine {
            id: new_id(),
            ..self.machine.clone()
        }
    }

    async fn restore(&self, firecracker: &Firecracker) -> Result<Box<dyn MicroVm>, Failure> {
        let (machine, mut unseen) = (self.named(), Timeline::start());
        let restored = firecracker.restore(&machine, &self.files, &mut unseen);
        Ok(restored.await?)
    }

    /// What each of so many takes while all live.
    async fn clones(&self, count: u32) -> Result<Vec<Taken>, Failure> {
        let way = self.ways.last().expect("there is one without a jail");
        let firecracker = &way.firecracker;
        let mut clones = Vec::new();
        for _ in 0..count {
            let vm = self.restore(firecracker).await?;
            greet(&*vm).await?;
            clones.push(vm);
        }
        let taken: Result<Vec<Taken>, Failure> = clones.iter().map(|vm| of(vm.pid())).collect();
        for vm in clones {
            vm.destroy().await.map_err(Failure::platform)?;
        }
        taken
    }
}

/// Waits for the guest's first reply.
async fn greet(vm: &dyn MicroVm) -> Result<(), Failure> {
    let deadline = Instant::now() + STEP;
    let stream = connect(vm.vsock_path(), SESSION_PORT, deadline)
        .await
        .map_err(Failure::platform)?;
    drop(Session::open(stream).await?);
    Ok(())
}

fn tell(measured: &Measured) -> Result<(), Failure> {
    say(format_args!(
        "firecracker {} with the bare guest, on {}",
        measured.firecracker, measured.host
    ))?;
    for Size { memory_mib, ways } in &measured.sizes {
        let runs = ways.first().map_or(0, |(_, values)| values.len());
        say(format_args!(
            "{:>15} {:>10} {:>10} {:>10} {:>10}   (ms from the start of a restore to the first reply, {memory_mib} MiB, {runs} each in turns)",
            "", "p50", "p90", "p99", "added p50"
        ))?;
        let mut raw = None;
        for (name, values) in ways {
            let [p50, p90, p99] = percentiles(values, [50, 90, 99]);
            let added = p50 - *raw.get_or_insert(p50);
            say(format_args!(
                "{name:>15} {p50:>10.1} {p90:>10.1} {p99:>10.1} {added:>10.1}"
            ))?;
        }
    }
    let kib = |kib: fn(&Taken) -> u64| -> [f64; 2] {
        let values: Vec<f64> = measured
            .clones
            .iter()
            .map(|taken| kib(taken) as f64 / 1024.0)
            .collect();
        percentiles(&values, [50, 100])
    };
    let [pss, most] = kib(|taken| taken.pss_kib);
    let [private, _] = kib(|taken| taken.private_kib);
    say(format_args!(
        "{} clones at once: PSS p50 {pss:.1} MiB, max {most:.1}; private p50 {private:.1}",
        measured.clones.len()
    ))
}
