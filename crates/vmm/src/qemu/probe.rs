//! What this host has: QEMU, and whether guests really run on its KVM.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use firelane_sys::kvm;
use serde::{Deserialize, Serialize};

use super::Qemu;
use crate::driver::{Acceleration, BootError, Driver, Machine};
use crate::owned;
use crate::timeline::Timeline;

/// The program's usual name.
pub(super) const PROGRAM: &str = "qemu-system-x86_64";
/// How to get it.
pub(super) const REMEDY: &str = "apt-get install --no-install-recommends qemu-system-x86";
/// What a guest may take to be ready if KVM really runs it: it takes less than one second.
const KVM_DEADLINE: Duration = Duration::from_secs(6);

/// After how long a guest is booted on a KVM again that did not boot one.
const RETRY_SECONDS: u64 = 6 * 3600;
/// Start of the names of files that keep answers.
const PREFIX: &str = "accelerator-";

/// QEMU is not usable.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// It is not installed.
    #[error("QEMU is not installed: {program} was not found")]
    Missing {
        /// The program looked for.
        program: PathBuf,
    },
    /// It does not run.
    #[error("cannot run {program}")]
    Broken {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl ProbeError {
    /// What the user can do about it.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        REMEDY
    }
}

/// QEMU's program: `$FIRELANE_QEMU`, else the one on `PATH`.
#[must_use]
pub fn default_program() -> PathBuf {
    let named = std::env::var_os("FIRELANE_QEMU").map(PathBuf::from);
    let on_path = || {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path)
            .map(|folder| folder.join(PROGRAM))
            .find(|path| path.is_file())
    };
    named
        .or_else(on_path)
        .unwrap_or_else(|| Path::new("/usr/bin").join(PROGRAM))
}

/// The program if it is there.
///
/// # Errors
/// [`ProbeError::Missing`].
pub fn find_program(program: &Path) -> Result<(), ProbeError> {
    if program.is_file() {
        Ok(())
    } else {
        Err(ProbeError::Missing {
            program: program.into(),
        })
    }
}

/// The version that the program reports, for example `7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)`.
///
/// # Errors
/// [`ProbeError`].
pub fn version(program: &Path) -> Result<String, ProbeError> {
    find_program(program)?;
    let broken = |source| ProbeError::Broken {
        program: program.into(),
        source,
    };
    let output = Command::new(program)
        .arg("--version")
        .output()
        .map_err(broken)?;
    let text = String::from_utf8_lossy(&output.stdout);
    let first = text.lines().next().unwrap_or_default();
    match first.strip_prefix("QEMU emulator version ") {
        Some(version) => Ok(version.into()),
        None => Err(broken(io::Error::other("it does not tell its version"))),
    }
}

/// What executes guests here, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accelerator {
    /// Whether a guest was ready under KVM.
    pub kvm: bool,
    /// Why KVM is not used; empty if it is.
    pub reason: String,
    /// Rate of the time-stamp counter in kHz.
    pub tsc_khz: u64,
    /// What the answer depends on.
    key: String,
    /// Until when it counts, in seconds of the Unix clock; for ever if absent.
    until: Option<u64>,
}

impl Accelerator {
    /// Which one to use.
    #[must_use]
    pub fn acceleration(&self) -> Acceleration {
        if self.kvm {
            Acceleration::Kvm
        } else {
            Acceleration::Tcg
        }
    }

    /// The answer kept in the folder `cache`, if it was found on this boot of the host with these
    /// programs and rights; else, or if a `fresh` one is wanted, finds out by booting `machine`,
    /// and keeps that.
    pub async fn find(qemu: &Qemu, machine: &Machine, cache: &Path, fresh: bool) -> Accelerator {
        let key = key(qemu, machine);
        let file = cache.join(format!("{PREFIX}{:016x}.json", owned::hash(&key)));
        let kept = read(&file).filter(|kept| !fresh && kept.key == key && kept.counts());
        if let Some(kept) = kept {
            return kept;
        }
        let found = Accelerator::probe(qemu, machine, key).await;
        if let Err(error) = keep(&file, &found) {
            tracing::warn!(%error, path = %file.display(), "cannot keep what the probe found");
        }
        found
    }

    async fn probe(qemu: &Qemu, machine: &Machine, key: String) -> Accelerator {
        let tsc_khz = firelane_sys::tsc::measure_khz();
        let (refused, until) = match kvm::check() {
            // A guest that did not boot may have met a host that was busy.
            Ok(()) => match boots(qemu, machine, tsc_khz).await {
                Ok(()) => (None, None),
                Err(reason) => (Some(reason), Some(now() + RETRY_SECONDS)),
            },
            Err(error) => (Some(chain(&error)), None),
        };
        Accelerator {
            kvm: refused.is_none(),
            reason: refused.unwrap_or_default(),
            tsc_khz,
            key,
            until,
        }
    }

    fn counts(&self) -> bool {
        self.until.is_none_or(|until| now() < until)
    }
}

/// Seconds of the Unix clock.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// Boots the machine under KVM and ends it.
async fn boots(qemu: &Qemu, machine: &Machine, tsc_khz: u64) -> Result<(), String> {
    let qemu = Qemu {
        acceleration: Acceleration::Kvm,
        tsc_khz,
        ..qemu.clone()
    };
    let id = format!("{}-kvm", machine.id);
    let machine = Machine {
        id,
        boot_timeout: KVM_DEADLINE,
        snapshot: None,
        ..machine.clone()
    };
    match qemu.boot(&machine, &mut Timeline::start()).await {
        Ok(vm) => vm.destroy().await.map_err(|error| chain(&error)),
        Err(BootError::NotReady { timeout, .. }) => Err(format!(
            "KVM answers, but a guest booted on it was not ready within {timeout:?}"
        )),
        Err(error) => Err(format!(
            "KVM answers, but a guest does not boot on it: {}",
            chain(&error)
        )),
    }
}

/// A file as far as its metadata tell whether it is another one.
pub(crate) fn stamp(path: &Path) -> String {
    let found = rustix::fs::stat(path).map_or_else(
        |errno| errno.to_string(),
        |stat| {
            format!(
                "{:o} {}:{} {} {}",
                stat.st_mode, stat.st_uid, stat.st_gid, stat.st_size, stat.st_mtime
            )
        },
    );
    format!("{} [{found}]", path.display())
}

/// The host's kernel as far as snapshots depend on it: `6.18` of `6.18.3-cloud-amd64`.
pub(crate) fn kernel_family() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let numbers = release.trim().splitn(3, '.').take(2);
    numbers.collect::<Vec<_>>().join(".")
}

/// The host's processor: its name and what it can do.
pub(crate) fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let first = text.split("\n\n").next().unwrap_or_default();
    let lines = first
        .lines()
        .filter(|line| line.starts_with("model name") || line.starts_with("flags"));
    lines.collect::<Vec<_>>().join(" ")
}

/// Everything that may change the answer, the host's boot first.
fn key(qemu: &Qemu, machine: &Machine) -> String {
    let groups = rustix::process::getgroups().unwrap_or_default();
    let mut groups: Vec<u32> = groups.iter().map(|group| group.as_raw()).collect();
    groups.sort_unstable();
    format!(
        "{} {} {} kvm {} user {} {groups:?} firelane {}",
        boot_id(),
        stamp(&qemu.program),
        machine.kernel.display(),
        stamp(Path::new("/dev/kvm")),
        rustix::process::geteuid().as_raw(),
        env!("CARGO_PKG_VERSION"),
    )
}

fn read(file: &Path) -> Option<Accelerator> {
    serde_json::from_slice(&fs::read(file).ok()?).ok()
}

/// Keeps the answer, and removes those of earlier boots of the host.
fn keep(file: &Path, found: &Accelerator) -> io::Result<()> {
    let text = serde_json::to_vec_pretty(found).map_err(io::Error::other)?;
    let aside = file.with_extension(format!("{}.tmp", std::process::id()));
    fs::write(&aside, text)?;
    fs::rename(&aside, file)?;
    let boot = boot_id();
    let Some(folder) = file.parent() else {
        return Ok(());
    };
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
        if ours && read(&entry.path()).is_some_and(|kept| !kept.key.starts_with(&boot)) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn boot_id() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
