//! Whether guests really run by a driver on this host: found out by booting one, and kept.
//!
//! A processor's flags, a device that opens and an ioctl that succeeds are necessary and not
//! sufficient. The answer is kept in a folder until the host boots again, or what it depends on changes; that
//! a guest did not boot, which may have met a host that was busy, for six hours.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use firelane_sys::kvm::{self, KvmError};
use serde::{Deserialize, Serialize};

use crate::driver::{BootError, Driver, Machine};
use crate::owned::hash;
use crate::timeline::Timeline;

/// What a guest may take to be ready if KVM really runs it: it takes less than one second.
const KVM_DEADLINE: Duration = Duration::from_secs(6);
/// After how long a guest is booted again where one did not boot.
const RETRY_SECONDS: u64 = 6 * 3600;
/// Start of the names of files that keep answers.
const PREFIX: &str = "trial-";

/// Whether guests run, and why not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// Whether a guest was ready.
    pub works: bool,
    /// Why the driver is not used; empty if it works.
    pub reason: String,
    /// Rate of the time-stamp counter in kHz.
    pub tsc_khz: u64,
    /// What the answer depends on.
    key: String,
    /// Until when it counts, in seconds of the Unix clock; for ever if absent.
    until: Option<u64>,
}

impl Trial {
    /// The answer kept in the folder `cache`, if it was found on this boot of the host for this driver
    /// and with these rights; else, or if a `fresh` one is wanted, boots `machine`, and keeps that.
    ///
    /// `programs` tells the driver's programs apart, and `hosted` whether firelane-hostd starts them. `driver` is given
    /// the rate of the time-stamp counter.
    pub async fn find<D: Driver>(
        programs: &str,
        hosted: bool,
        machine: &Machine,
        cache: &Path,
        fresh: bool,
        driver: impl FnOnce(u64) -> D,
    ) -> Trial {
        let key = key(&format!("{programs} hosted {hosted}"), machine);
        let file = cache.join(format!("{PREFIX}{:016x}.json", hash(&key)));
        let kept = read(&file).filter(|kept| !fresh && kept.key == key && kept.counts());
        if let Some(kept) = kept {
            return kept;
        }
        let tsc_khz = firelane_sys::tsc::measure_khz();
        let (refused, until) = match kvm_answers(hosted) {
            Ok(()) => match boots(&driver(tsc_khz), machine).await {
                Ok(()) => (None, None),
                Err(reason) => (Some(reason), Some(now() + RETRY_SECONDS)),
            },
            Err(error) => (Some(chain(&error)), None),
        };
        let found = Trial {
            works: refused.is_none(),
            reason: refused.unwrap_or_default(),
            tsc_khz,
            key,
            until,
        };
        if let Err(error) = keep(&file, &found) {
            tracing::warn!(%error, path = %file.display(), "cannot keep what was found out");
        }
        found
    }

    fn counts(&self) -> bool {
        self.until.is_none_or(|until| now() < until)
    }
}

/// Whether there is a KVM for our VMMs. Those that firelane-hostd starts have it from hostd: whether we may open it
/// ourselves says nothing.
///
/// # Errors
/// What is wrong with it.
pub fn kvm_answers(hosted: bool) -> Result<(), KvmError> {
    match kvm::check() {
        Err(KvmError::Open(error)) if hosted && error.kind() == io::ErrorKind::PermissionDenied => {
            Ok(())
        }
        checked => checked,
    }
}

/// Seconds of the Unix clock.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// Boots the machine and ends it.
async fn boots(driver: &impl Driver, machine: &Machine) -> Result<(), String> {
    let machine = Machine {
        id: format!("{}-kvm", machine.id),
        boot_timeout: KVM_DEADLINE,
        snapshot: None,
        ..machine.clone()
    };
    match driver.boot(&machine, &mut Timeline::start()).await {
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

/// Everything that may change the answer, the host's boot first.
fn key(programs: &str, machine: &Machine) -> String {
    let groups = rustix::process::getgroups().unwrap_or_default();
    let mut groups: Vec<u32> = groups.iter().map(|group| group.as_raw()).collect();
    groups.sort_unstable();
    format!(
        "{} {programs} {} kvm {} user {} {groups:?} firelane {}",
        boot_id(),
        machine.kernel.display(),
        crate::host::stamp(Path::new("/dev/kvm")),
        rustix::process::geteuid().as_raw(),
        env!("CARGO_PKG_VERSION"),
    )
}

fn read(file: &Path) -> Option<Trial> {
    serde_json::from_slice(&fs::read(file).ok()?).ok()
}

/// Keeps the answer, and removes those of earlier boots of the host.
fn keep(file: &Path, found: &Trial) -> io::Result<()> {
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
