//! What makes one clone of a snapshot different from the others.
//!
//! ```text
//!   fresh ── warm ──> stale ── renew ──> fresh
//! ```
//!
//! Clones begin with the same memory, so with the same random numbers to come, the same time and the
//! same name. A guest that was warmed for a snapshot is stale, and runs nothing until it has been
//! renewed: a clone that was forgotten fails, it does not run.
//!
//! Source: Linux, random(4) for the ioctls; systemd, machine-id(5).

#![expect(
    unsafe_code,
    reason = "the random device's ioctls have no safe wrapper"
)]

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};

use firelane_guest_proto::message::{Refused, RefusedCode, RenewSpec, SEED_BYTES};
use rustix::time::{ClockId, Timespec, clock_settime};

use crate::exec::refused;

/// Source: Linux, `include/uapi/linux/random.h`: `_IOW('R', 0x03, int[2])`.
const RNDADDENTROPY: libc::Ioctl = 0x4008_5203_u32 as libc::Ioctl;
/// The same: `_IO('R', 0x07)`.
const RNDRESEEDCRNG: libc::Ioctl = 0x5207_u32 as libc::Ioctl;
/// A time long before any snapshot. The step from it to the present is what tells libraries that
/// reseed by the clock (OpenSSL does) that a lot has happened.
const LONG_AGO: i64 = 946_684_800;
const NANOSECONDS: u64 = 1_000_000_000;

/// Whether the guest may run programs.
#[derive(Default)]
pub(crate) struct Renewal {
    stale: AtomicBool,
}

impl Renewal {
    /// From now on nothing runs.
    pub(crate) fn make_stale(&self) {
        self.stale.store(true, Ordering::SeqCst);
    }

    /// Refuses what a stale guest must not do.
    pub(crate) fn require_fresh(&self) -> Result<(), Refused> {
        if self.stale.load(Ordering::SeqCst) {
            let message = "this guest was warmed for a snapshot and has not been renewed since";
            return Err(refused(RefusedCode::Stale, message.into()));
        }
        Ok(())
    }

    /// Takes a new identity. On any failure the guest stays as stale as it was.
    pub(crate) fn renew(&self, spec: &RenewSpec) -> Result<(), Refused> {
        check(spec)?;
        let fail = |what: &str, error: io::Error| {
            refused(RefusedCode::Internal, format!("cannot {what}: {error}"))
        };
        reseed(&spec.seed).map_err(|error| fail("reseed the kernel", error))?;
        set_time(spec.realtime_ns).map_err(|error| fail("set the time", error))?;
        set_names(spec).map_err(|error| fail("take the new names", error))?;
        self.stale.store(false, Ordering::SeqCst);
        Ok(())
    }
}

/// Sets the clock back, before anything is warmed.
pub(crate) fn forget_time() -> io::Result<()> {
    let time = Timespec {
        tv_sec: LONG_AGO,
        tv_nsec: 0,
    };
    Ok(clock_settime(ClockId::Realtime, time)?)
}

fn check(spec: &RenewSpec) -> Result<(), Refused> {
    let invalid = |message: String| Err(refused(RefusedCode::Invalid, message));
    if spec.seed.len() != SEED_BYTES {
        return invalid(format!(
            "the seed has {} bytes, not {SEED_BYTES}",
            spec.seed.len()
        ));
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if spec.hostname.is_empty() || spec.hostname.len() > 63 || !spec.hostname.bytes().all(plain) {
        return invalid("the host name is not 1 to 63 letters, digits and hyphens".into());
    }
    Ok(())
}

/// Source: Linux, `struct rand_pool_info`.
#[repr(C)]
struct PoolInfo {
    entropy_bits: libc::c_int,
    size: libc::c_int,
    bytes: [u8; SEED_BYTES],
}

/// Mixes the seed into the kernel's generator, credits it, and has the generator use it at once.
fn reseed(seed: &[u8]) -> io::Result<()> {
    let bytes: [u8; SEED_BYTES] = seed.try_into().map_err(io::Error::other)?;
    let size = libc::c_int::try_from(SEED_BYTES).map_err(io::Error::other)?;
    let info = PoolInfo {
        entropy_bits: size * 8,
        size,
        bytes,
    };
    let device = File::options().write(true).open("/dev/random")?;
    // SAFETY: the structure is the one that this ioctl reads, as large as it says.
    if unsafe { libc::ioctl(device.as_raw_fd(), RNDADDENTROPY, &raw const info) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: this ioctl takes no argument.
    if unsafe { libc::ioctl(device.as_raw_fd(), RNDRESEEDCRNG) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn set_time(realtime_ns: u64) -> io::Result<()> {
    let time = Timespec {
        tv_sec: i64::try_from(realtime_ns / NANOSECONDS).map_err(io::Error::other)?,
        tv_nsec: i64::try_from(realtime_ns % NANOSECONDS).map_err(io::Error::other)?,
    };
    Ok(clock_settime(ClockId::Realtime, time)?)
}

fn set_names(spec: &RenewSpec) -> io::Result<()> {
    rustix::system::sethostname(spec.hostname.as_bytes())?;
    fs::write("/etc/hostname", format!("{}\n", spec.hostname))?;
    let id: String = spec
        .machine_id
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    fs::write("/etc/machine-id", id + "\n")
}
