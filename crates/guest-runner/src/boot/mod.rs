//! From the kernel's hand-over to a guest that can run programs.
//!
//! The kernel starts us from the initrd. We load the modules of the device model, mount the
//! template's read-only root with an overlay in memory over it, and move there.

mod masks;
mod modules;
mod mounts;
mod network;
mod sysctl;
mod tier;

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use firelane_guest_proto::Tier;
use rustix::time::{ClockId, clock_gettime};

use crate::cgroup::{Bounds, Cgroup};

/// Memory that no exec may take, so that the guest-runner and the kernel can go on, in bytes.
const RESERVED_BYTES: u64 = 24 << 20;
/// Least memory that execs need to be of any use, in bytes.
const LEAST_EXEC_BYTES: u64 = 16 << 20;
/// Processes and threads of all execs together.
const MAX_PROCESSES: u32 = 4096;

/// Why the guest could not be prepared.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BootError {
    #[error("cannot mount {target}")]
    Mount {
        target: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("cannot load module {name}")]
    Module {
        name: String,
        #[source]
        source: io::Error,
    },
    #[error("the root disk {path} did not appear within {waited:?}")]
    NoRootDisk {
        path: &'static str,
        waited: Duration,
    },
    #[error("cannot {action} {}", path.display())]
    File {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot bring up the loopback interface")]
    Loopback(#[source] io::Error),
    #[error("cannot bring up the network device")]
    Network(#[source] io::Error),
    #[error("cannot set up cgroups")]
    Cgroup(#[source] io::Error),
    #[error("the host has not said which system calls programs may make")]
    Tier(#[source] firelane_guest_proto::tier::UnknownTier),
    #[error("the guest has too little memory to run anything: {available} bytes are left")]
    NoMemory { available: u64 },
}

/// A guest that can run programs.
pub(crate) struct Prepared {
    pub(crate) execs: Cgroup,
    pub(crate) zygotes: Cgroup,
    pub(crate) tier: Tier,
    pub(crate) facts: Facts,
}

/// What the welcome message tells of the guest.
pub(crate) struct Facts {
    /// Microseconds from the kernel's start to ours.
    pub(crate) started_us: u64,
    /// Microseconds from the kernel's start to being ready.
    pub(crate) ready_us: u64,
    /// All memory, in bytes.
    pub(crate) memory_bytes: u64,
    /// Release of the kernel.
    pub(crate) kernel: String,
}

impl Facts {
    /// The same facts, ready at this moment.
    pub(crate) fn ready_now(self) -> Facts {
        Facts {
            ready_us: uptime_us(),
            ..self
        }
    }
}

/// Makes the guest usable.
pub(crate) fn prepare() -> Result<Prepared, BootError> {
    let started_us = uptime_us();
    let tier = tier::read()?;
    mounts::early()?;
    modules::load_all()?;
    let memory = meminfo("MemTotal")?;
    mounts::enter_root(memory)?;
    mounts::late()?;
    sysctl::harden()?;
    masks::put_on()?;
    network::loopback_up().map_err(BootError::Loopback)?;
    network::device_up().map_err(BootError::Network)?;
    rustix::system::sethostname(b"firelane").map_err(|errno| BootError::File {
        action: "set",
        path: "hostname".into(),
        source: errno.into(),
    })?;
    let available = meminfo("MemAvailable")?;
    let memory_bytes = available
        .checked_sub(RESERVED_BYTES)
        .filter(|bytes| *bytes >= LEAST_EXEC_BYTES)
        .ok_or(BootError::NoMemory { available })?;
    let bounds = Bounds {
        memory_bytes,
        processes: MAX_PROCESSES,
    };
    let execs = Cgroup::for_execs(bounds).map_err(BootError::Cgroup)?;
    let zygotes = execs.child("zygotes", bounds).map_err(BootError::Cgroup)?;
    // When memory runs out in spite of the bounds, the kernel must choose somebody else.
    write("/proc/self/oom_score_adj", "-1000")?;
    let kernel = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    let facts = Facts {
        started_us,
        ready_us: 0,
        memory_bytes: memory,
        kernel,
    };
    Ok(Prepared {
        execs,
        zygotes,
        tier,
        facts,
    })
}

/// Ends the microVM.
pub(crate) fn reset() -> ! {
    loop {
        // As PID 1 with all capabilities this does not return; if it does, there is nothing left
        // to do but to try again.
        let _ = rustix::system::reboot(rustix::system::RebootCommand::Restart);
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn uptime_us() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec.unsigned_abs() * 1_000_000 + now.tv_nsec.unsigned_abs() / 1000
}

/// A line of /proc/meminfo, in bytes.
fn meminfo(key: &str) -> Result<u64, BootError> {
    let path = PathBuf::from("/proc/meminfo");
    let fail = |source| BootError::File {
        action: "read",
        path: path.clone(),
        source,
    };
    let text = fs::read_to_string(&path).map_err(fail)?;
    let kib = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))
        .and_then(|value| value.trim().strip_suffix(" kB")?.parse::<u64>().ok())
        .ok_or_else(|| fail(io::Error::other(format!("no line {key}"))))?;
    Ok(kib << 10)
}

fn write(path: &str, value: &str) -> Result<(), BootError> {
    fs::write(path, value).map_err(|source| BootError::File {
        action: "write",
        path: path.into(),
        source,
    })
}
