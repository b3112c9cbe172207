//! `firelane bench paging`: how a clone's memory comes to it, by Firecracker with the bare guest.
//!
//! A clone is restored and reads one word of each page of so much memory that its snapshot has; it is measured from the
//! start of the restore to the end of that. In turns: the file is mapped; pages are handed out as they are missed;
//! the same where a clone before has left what it missed. Each with the file in the page cache, and without.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use firelane_agent::workshop::new_id;
use firelane_guest_proto::SESSION_PORT;
use firelane_guest_proto::message::{ExecSpec, Limits, Program};
use firelane_vmm::connect::connect;
use firelane_vmm::driver::{DiskLimits, Driver, Machine, MicroVm, SnapshotFiles};
use firelane_vmm::firecracker::{Firecracker, Jailing, MemoryFrom};
use firelane_vmm::session::{Event, Session};
use firelane_vmm::timeline::Timeline;
use rustix::fs::{Advice, fadvise};
use serde::Serialize;
use tokio::time::Instant;

use super::memory::of;
use super::report::{Machinery, keep};
use super::stats::percentiles;
use crate::args::PagingArgs;
use crate::drivers;
use crate::failure::Failure;
use crate::host::{bare_guest, sweep};
use crate::say::say;

/// How long each step may take.
const STEP: Duration = Duration::from_secs(60);
/// Memory of the guest, in MiB, beside what it touches.
const OWN_MIB: u32 = 64;
/// Least memory of the guest, in MiB.
const LEAST_MIB: u32 = 128;
/// Clones that live at once, for what they share.
const CLONES: u32 = 4;

/// How a clone comes by its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Mapped,
    Missed,
    Known,
}

const WAYS: [(&str, Way); 3] = [
    ("mapped", Way::Mapped),
    ("missed", Way::Missed),
    ("known", Way::Known),
];

#[derive(Debug, Serialize)]
struct Measured {
    benchmark: &'static str,
    host: Machinery,
    firecracker: String,
    sets: Vec<Set>,
}

/// What was measured of one working set.
#[derive(Debug, Serialize)]
struct Set {
    touched_mib: u32,
    cached: bool,
    ways: Vec<Samples>,
}

#[derive(Debug, Serialize)]
struct Samples {
    way: &'static str,
    /// From the start of the restore to the end of the program.
    took_ms: Vec<f64>,
    /// Memory of each of several that live at once, what they share in equal parts (PSS).
    pss_mib: Vec<f64>,
}

pub(super) async fn paging(args: &PagingArgs) -> Result<u8, Failure> {
    let Some(firecracker) = drivers::firecracker().await? else {
        let missing = anyhow::anyhow!("Firecracker is not installed");
        let remedy = "name it in FIRELANE_FIRECRACKER";
        return Err(Failure::platform(missing).with_remedy(remedy));
    };
    let firecracker = firecracker.map_err(|error| {
        let remedy = error.remedy();
        Failure::platform(error).with_remedy(remedy)
    })?;
    sweep();
    let folder = tempfile::tempdir().map_err(Failure::platform)?;
    let firecracker = firecracker.with_jailing(Jailing::None);
    let most = args.touched_mib.iter().max().copied().unwrap_or(0);
    let bench = Bench::make(&firecracker, folder.path(), most).await?;
    let mut sets = Vec::new();
    for touched_mib in &args.touched_mib {
        for cached in [true, false] {
            sets.push(bench.set(*touched_mib, cached, args.runs).await?);
        }
    }
    let measured = Measured {
        benchmark: "paging",
        host: Machinery::of_host()?,
        firecracker: firecracker.version().to_string(),
        sets,
    };
    tell(&measured)?;
    keep(&measured, args.json.as_deref())?;
    Ok(0)
}

/// A snapshot of a bare guest that has written to so much memory.
struct Bench {
    firecracker: Firecracker,
    machine: Machine,
    files: SnapshotFiles,
    record: PathBuf,
}

impl Bench {
    async fn make(
        firecracker: &Firecracker,
        folder: &Path,
        written_mib: u32,
    ) -> Result<Bench, Failure> {
        let files = SnapshotFiles::new(folder.join("memory"), folder.join("state"));
        let machine = Machine {
            id: new_id(),
            kernel: bare_guest()?,
            initrd: None,
            rootfs: None,
            memory_mib: (2 * written_mib + OWN_MIB).max(LEAST_MIB),
            vcpus: 1,
            boot_timeout: STEP,
            snapshot: Some(files.clone()),
            network: None,
            disk: DiskLimits::DEFAULT,
        };
        let vm = firecracker.boot(&machine, &mut Timeline::start()).await?;
        ran(&*vm, "dirty", written_mib).await?;
        vm.snapshot().await.map_err(Failure::platform)?;
        Ok(Bench {
            firecracker: firecracker.clone(),
            machine: Machine {
                snapshot: None,
                ..machine
            },
            record: files.memory.with_extension("set"),
            files,
        })
    }

    async fn set(&self, touched_mib: u32, cached: bool, runs: u32) -> Result<Set, Failure> {
        let mut ways = WAYS.map(|(way, _)| Samples {
            way,
            took_ms: Vec::new(),
            pss_mib: Vec::new(),
        });
        for number in 0..=runs {
            for ((_, way), samples) in WAYS.iter().zip(&mut ways) {
                if *way == Way::Missed {
                    self.forget()?;
                }
                if !cached {
                    self.drop_from_cache()?;
                }
                let begun = Instant::now();
                let vm = self.clone_of(*way, touched_mib).await?;
                let took = begun.elapsed();
                vm.destroy().await.map_err(Failure::platform)?;
                // The first fills caches that later ones find full. What it missed is then known.
                if number > 0 {
                    samples.took_ms.push(took.as_secs_f64() * 1e3);
                }
            }
        }
        for ((_, way), samples) in WAYS.iter().zip(&mut ways) {
            samples.pss_mib = self.several(*way, touched_mib).await?;
        }
        Ok(Set {
            touched_mib,
            cached,
            ways: ways.into(),
        })
    }

    /// A clone that has read so much.
    async fn clone_of(&self, way: Way, touched_mib: u32) -> Result<Box<dyn MicroVm>, Failure> {
        let from = match way {
            Way::Mapped => MemoryFrom::File,
            Way::Missed | Way::Known => MemoryFrom::Userfault,
        };
        let machine = Machine {
            id: new_id(),
            ..self.machine.clone()
        };
        let driver = self.firecracker.with_memory(from);
        let mut unseen = Timeline::start();
        let vm = driver.restore(&machine, &self.files, &mut unseen).await?;
        ran(&*vm, "check", touched_mib).await?;
        Ok(vm)
    }

    /// What each of several clones takes while all live.
    async fn several(&self, way: Way, touched_mib: u32) -> Result<Vec<f64>, Failure> {
        let mut clones = Vec::new();
        for _ in 0..CLONES {
            clones.push(self.clone_of(way, touched_mib).await?);
        }
        let taken: Result<Vec<f64>, Failure> = clones
            .iter()
            .map(|vm| Ok(of(vm.pid())?.pss_kib as f64 / 1024.0))
            .collect();
        for vm in clones {
            vm.destroy().await.map_err(Failure::platform)?;
        }
        taken
    }

    /// Forgets what clones have missed.
    fn forget(&self) -> Result<(), Failure> {
        match std::fs::remove_file(&self.record) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Failure::platform(error))
            }
            _ => Ok(()),
        }
    }

    fn drop_from_cache(&self) -> Result<(), Failure> {
        let dropped = || {
            let file = File::open(&self.files.memory)?;
            // What was not written yet stays.
            file.sync_all()?;
            Ok::<_, std::io::Error>(fadvise(&file, 0, None, Advice::DontNeed)?)
        };
        dropped().map_err(Failure::platform)
    }
}

/// Has the guest run one of its programs to a good end.
async fn ran(vm: &dyn MicroVm, program: &str, mib: u32) -> Result<(), Failure> {
    let deadline = Instant::now() + STEP;
    let stream = connect(vm.vsock_path(), SESSION_PORT, deadline)
        .await
        .map_err(Failure::platform)?;
    let session = Session::open(stream).await?;
    let spec = ExecSpec {
        trace_id: "paging".into(),
        program: Program::Command {
            argv: vec![program.into(), mib.to_string()],
        },
        env: Vec::new(),
        cwd: None,
        limits: Limits::default(),
        pty: None,
    };
    let mut exec = session.exec(&spec).await?;
    let mut said = Vec::new();
    let outcome = loop {
        match exec.next().await? {
            Event::Stdout(bytes) | Event::Stderr(bytes) => said.extend(bytes),
            Event::Ended(outcome) => break outcome,
            Event::Started => {}
        }
    };
    session.close().await;
    if outcome.exit_code() == 0 {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&said);
    Err(Failure::platform(anyhow::anyhow!(
        "the bare guest did not {program}: {}",
        said.trim()
    )))
}

fn tell(measured: &Measured) -> Result<(), Failure> {
    say(format_args!(
        "firecracker {} with the bare guest and no jail, on {}",
        measured.firecracker, measured.host
    ))?;
    for set in &measured.sets {
        let runs = set.ways.first().map_or(0, |way| way.took_ms.len());
        let cache = match set.cached {
            true => "in the page cache",
            false => "not in the page cache",
        };
        say(format_args!(
            "{:>12} {:>10} {:>10} {:>10} {:>12}   (ms from the start of a restore until {} MiB are read, {cache}, {runs} each in turns)",
            "", "p50", "p90", "ratio p50", "PSS of 4", set.touched_mib
        ))?;
        let mut first = None;
        for way in &set.ways {
            let [p50, p90] = percentiles(&way.took_ms, [50, 90]);
            let [pss] = percentiles(&way.pss_mib, [50]);
            let ratio = p50 / *first.get_or_insert(p50);
            say(format_args!(
                "{:>12} {p50:>10.1} {p90:>10.1} {ratio:>10.2} {pss:>12.1}",
                way.way
            ))?;
        }
    }
    Ok(())
}
