//! Which driver runs guests here: the best that works, found out by trying.
//!
//! ```text
//!   Firecracker ── is there? new enough? does a guest boot? ──> Firecracker
//!   QEMU ── does a guest boot on KVM? ──> QEMU with KVM, else by emulation
//! ```

use std::path::Path;
use std::sync::Arc;

use firelane_vmm::driver::{Acceleration, Driver, Machine};
use firelane_vmm::firecracker::{self, BadMemoryFrom, Firecracker, Jailing, MemoryFrom, Place};
use firelane_vmm::qemu::{self, Qemu};
use firelane_vmm::rundir;

use crate::args::DriverChoice;
use crate::failure::Failure;
use crate::hostd::Hostd;

/// What was tried, and how it came out.
#[derive(Clone, Debug)]
pub(crate) struct Tried {
    /// What.
    pub(crate) name: &'static str,
    /// What was found, or what is wrong.
    pub(crate) finding: Result<String, String>,
    pub(crate) remedy: Option<String>,
}

/// The driver that was chosen.
#[derive(Clone)]
pub(crate) struct Chosen {
    pub(crate) driver: Arc<dyn Driver>,
    /// The same, if it is QEMU.
    pub(crate) qemu: Option<Qemu>,
    /// What was tried on the way to it.
    pub(crate) tried: Vec<Tried>,
}

impl Chosen {
    /// Tries what `choice` allows, the best first, by booting `machine`.
    pub(crate) async fn find(
        choice: DriverChoice,
        machine: &Machine,
        cache: &Path,
        fresh: bool,
    ) -> Result<Chosen, Failure> {
        let mut tried = Vec::new();
        if choice != DriverChoice::Qemu {
            let (found, told) = try_firecracker(choice, machine, cache, fresh).await?;
            if let Some(firecracker) = found {
                tried.push(told);
                return Ok(Chosen {
                    driver: Arc::new(firecracker),
                    qemu: None,
                    tried,
                });
            }
            if choice == DriverChoice::Firecracker {
                let reason = told.finding.unwrap_or_else(|reason| reason);
                let failure = Failure::platform(anyhow::anyhow!("{reason}"));
                let remedy = "or use --driver auto or --driver qemu";
                let remedy = told
                    .remedy
                    .map_or(remedy.into(), |first| format!("{first}; {remedy}"));
                return Err(failure.with_remedy(remedy));
            }
            tried.push(told);
        }
        let (qemu, told) = try_qemu(machine, cache, fresh).await?;
        tried.push(told);
        Ok(Chosen {
            driver: Arc::new(qemu.clone()),
            qemu: Some(qemu),
            tried,
        })
    }
}

/// Refuses early where there is no program that `choice` could mean: what comes before a trial may take
/// minutes.
pub(crate) fn look(choice: DriverChoice) -> Result<(), Failure> {
    let hosted = Hostd::find().firecracker();
    let firecracker = hosted.or_else(firecracker::default_program).is_some();
    if choice == DriverChoice::Firecracker || firecracker && choice == DriverChoice::Auto {
        return Ok(());
    }
    find_qemu(&qemu::default_program())
}

fn find_qemu(program: &Path) -> Result<(), Failure> {
    qemu::find_program(program).map_err(|error| {
        let remedy = error.remedy();
        Failure::platform(error).with_remedy(remedy)
    })
}

async fn try_firecracker(
    choice: DriverChoice,
    machine: &Machine,
    cache: &Path,
    fresh: bool,
) -> Result<(Option<Firecracker>, Tried), Failure> {
    const NAME: &str = "Firecracker";
    let refused = |reason: String, remedy: String| Tried {
        name: NAME,
        finding: Err(reason),
        remedy: Some(remedy),
    };
    let Some(found) = firecracker().await? else {
        let remedy = "install Firecracker v1.16.1 or later and its jailer, or name them in FIRELANE_FIRECRACKER and FIRELANE_JAILER";
        return Ok((
            None,
            refused("Firecracker is not installed".into(), remedy.into()),
        ));
    };
    let firecracker = match found {
        Ok(firecracker) => firecracker,
        Err(error) => {
            let remedy = error.remedy();
            let reason = format!("{:#}", anyhow::Error::from(error));
            return Ok((None, refused(reason, remedy)));
        }
    };
    let trial = firecracker.try_out(machine, cache, fresh).await;
    if !trial.works {
        let remedy = "use a machine on which KVM runs Linux guests";
        return Ok((None, refused(trial.reason, remedy.into())));
    }
    let version = firecracker.version();
    // Asked for by name it can boot; without snapshots QEMU serves better.
    if !version.restores() && choice == DriverChoice::Auto {
        let reason = format!("Firecracker {version} is too old to restore snapshots");
        return Ok((
            None,
            refused(reason, "install Firecracker v1.16.1 or later".into()),
        ));
    }
    let jail = match firecracker.jailing() {
        Jailing::Jailer(path) => format!("through {}", path.display()),
        Jailing::Ours => "in our own jail".into(),
        Jailing::Hostd(_) => "jailed by firelane-hostd".into(),
        Jailing::None => "without a jail".into(),
    };
    let tried = Tried {
        name: NAME,
        finding: Ok(format!("{version}, {jail}: a guest booted")),
        remedy: None,
    };
    Ok((Some(firecracker.with_tsc(trial.tsc_khz)), tried))
}

/// The Firecracker of this host, if there is one.
pub(crate) async fn firecracker()
-> Result<Option<Result<Firecracker, firecracker::FindError>>, Failure> {
    let (program, jailing) = match Hostd::find() {
        Hostd::Usable {
            socket,
            firecracker: Some(program),
            ..
        } => (Some(program), Jailing::Hostd(socket)),
        _ => {
            let jailing = firecracker::default_jailer().map_or(Jailing::Ours, Jailing::Jailer);
            (firecracker::default_program(), jailing)
        }
    };
    let Some(program) = program else {
        return Ok(None);
    };
    let place = Place {
        program,
        jailing,
        jail_program: std::env::current_exe().map_err(Failure::platform)?,
        run_base: rundir::default_base(),
    };
    let memory = memory_from()?;
    let found = Firecracker::find(place).await;
    Ok(Some(found.map(|firecracker| match memory {
        Some(memory) => firecracker.with_memory(memory),
        None => firecracker,
    })))
}

/// How guests shall come by their memory, if `$FIRELANE_FIRECRACKER_MEMORY` says so.
fn memory_from() -> Result<Option<MemoryFrom>, Failure> {
    const NAME: &str = "FIRELANE_FIRECRACKER_MEMORY";
    let Some(wanted) = std::env::var_os(NAME) else {
        return Ok(None);
    };
    let parsed = wanted.to_string_lossy().parse();
    parsed
        .map(Some)
        .map_err(|error: BadMemoryFrom| Failure::usage(format!("{NAME}: {error}")))
}

async fn try_qemu(machine: &Machine, cache: &Path, fresh: bool) -> Result<(Qemu, Tried), Failure> {
    let (program, hostd) = match Hostd::find() {
        Hostd::Usable { socket, qemu, .. } => (qemu, Some(socket)),
        Hostd::Unneeded | Hostd::Absent => (None, None),
        Hostd::Unusable(error) => {
            let error = anyhow::Error::from(error);
            tracing::warn!("VMMs have only this user's rights to be confined with: {error:#}");
            (None, None)
        }
    };
    let program = program.unwrap_or_else(qemu::default_program);
    find_qemu(&program)?;
    let qemu = Qemu {
        program,
        hostd,
        jail_program: std::env::current_exe().map_err(Failure::platform)?,
        run_base: rundir::default_base(),
        acceleration: Acceleration::Tcg,
        tsc_khz: 0,
    };
    let trial = qemu.try_kvm(machine, cache, fresh).await;
    let (acceleration, finding, remedy) = if trial.works {
        (Acceleration::Kvm, Ok("a guest booted".into()), None)
    } else {
        let remedy = "use a machine on which KVM runs Linux guests; emulation is slower, and no security boundary";
        (Acceleration::Tcg, Err(trial.reason), Some(remedy.into()))
    };
    let qemu = Qemu {
        acceleration,
        tsc_khz: trial.tsc_khz,
        ..qemu
    };
    let tried = Tried {
        name: "KVM guests",
        finding,
        remedy,
    };
    Ok((qemu, tried))
}
