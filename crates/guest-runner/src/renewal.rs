//! What makes one clone of a snapshot different from the others.
//!
//! ```text
//!   fresh ── warm ────> stale ── renew ──────────> fresh
//!   fresh ── freeze ──> stale ── renew or thaw ──> fresh
//!            programs stand still
//! ```
//!
//! Clones begin with the same memory, so with the same random numbers to come, the same time and the
//! same name. A guest that was warmed or frozen for a snapshot is stale, and runs nothing until it has
//! been renewed: a clone that was forgotten fails, it does not run. The one that was frozen and goes
//! on itself is thawed: it keeps its name.
//!
//! Source: Linux, random(4) for the ioctls; systemd, machine-id(5).

#![expect(
    unsafe_code,
    reason = "the random device's ioctls have no safe wrapper"
)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use firelane_guest_proto::message::{Refused, RefusedCode, RenewSpec, SEED_BYTES, ThawSpec};
use rustix::time::{ClockId, Timespec, clock_settime};

use crate::cgroup::Cgroup;
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
    state: Mutex<State>,
    /// Rung when nothing is being started any more.
    idle: Condvar,
}

#[derive(Default)]
struct State {
    stale: bool,
    /// Its programs stand still.
    frozen: bool,
    /// Programs that are being started.
    starting: usize,
}

/// While it lives, the guest is not frozen: a program is being started.
pub(crate) struct Starting<'a>(&'a Renewal);

impl Drop for Starting<'_> {
    fn drop(&mut self) {
        self.0.lock().starting -= 1;
        self.0.idle.notify_all();
    }
}

impl Renewal {
    /// From now on nothing runs.
    pub(crate) fn make_stale(&self) {
        self.lock().stale = true;
    }

    /// Refuses what a stale guest must not do.
    pub(crate) fn require_fresh(&self) -> Result<(), Refused> {
        self.lock().require_fresh()
    }

    /// Begins to start a program; a stale guest refuses.
    pub(crate) fn begin(&self) -> Result<Starting<'_>, Refused> {
        let mut state = self.lock();
        state.require_fresh()?;
        state.starting += 1;
        Ok(Starting(self))
    }

    /// Stops all programs where they are; nothing runs from then on. What cannot be stopped in time
    /// goes on, and the guest is as fresh as before.
    pub(crate) fn freeze(&self, execs: &Cgroup, limit: Duration) -> Result<(), Refused> {
        let deadline = Instant::now() + limit;
        {
            let mut state = self.lock();
            state.require_fresh()?;
            state.stale = true;
            while state.starting > 0 {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    state.stale = false;
                    return Err(busy("a program is being started", limit));
                }
                let waited = self.idle.wait_timeout(state, left);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
        let frozen = execs.freeze(deadline);
        let mut state = self.lock();
        match frozen {
            Ok(()) => {
                state.frozen = true;
                Ok(())
            }
            Err(error) => {
                let reason = match error.kind() {
                    io::ErrorKind::TimedOut => busy("the programs do not stand still", limit),
                    _ => fail("freeze the programs", &error),
                };
                // If they cannot be let go, the guest stays stale, and that is told.
                execs.thaw().map_err(|error| fail("go on", &error))?;
                state.stale = false;
                Err(reason)
            }
        }
    }

    /// Takes a new identity. On any failure the guest stays as stale as it was.
    pub(crate) fn renew(&self, spec: &RenewSpec, execs: &Cgroup) -> Result<(), Refused> {
        check_seed(&spec.seed)?;
        check_name(&spec.hostname)?;
        reseed(&spec.seed).map_err(|error| fail("reseed the kernel", &error))?;
        set_time(spec.realtime_ns).map_err(|error| fail("set the time", &error))?;
        set_names(spec).map_err(|error| fail("take the new names", &error))?;
        self.go_on(execs)
    }

    /// Goes on after a freeze under the same names. On any failure the guest stays frozen.
    pub(crate) fn thaw(&self, spec: &ThawSpec, execs: &Cgroup) -> Result<(), Refused> {
        check_seed(&spec.seed)?;
        if !self.lock().frozen {
            let message = "this guest is not frozen";
            return Err(refused(RefusedCode::Invalid, message.into()));
        }
        reseed(&spec.seed).map_err(|error| fail("reseed the kernel", &error))?;
        set_time(spec.realtime_ns).map_err(|error| fail("set the time", &error))?;
        self.go_on(execs)
    }

    fn go_on(&self, execs: &Cgroup) -> Result<(), Refused> {
        let mut state = self.lock();
        if state.frozen {
            execs
                .thaw()
                .map_err(|error| fail("let the programs go on", &error))?;
            state.frozen = false;
        }
        state.stale = false;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn require_fresh(&self) -> Result<(), Refused> {
        if !self.stale {
            return Ok(());
        }
        let message =
            "this guest was warmed or frozen for a snapshot and has not been renewed since";
        Err(refused(RefusedCode::Stale, message.into()))
    }
}

fn fail(what: &str, error: &io::Error) -> Refused {
    refused(RefusedCode::Internal, format!("cannot {what}: {error}"))
}

fn busy(what: &str, limit: Duration) -> Refused {
    refused(RefusedCode::Busy, format!("{what}, within {limit:?}"))
}

/// Sets the clock back, before anything is warmed.
pub(crate) fn forget_time() -> io::Result<()> {
    let time = Timespec {
        tv_sec: LONG_AGO,
        tv_nsec: 0,
    };
    Ok(clock_settime(ClockId::Realtime, time)?)
}

fn check_seed(seed: &[u8]) -> Result<(), Refused> {
    if seed.len() == SEED_BYTES {
        return Ok(());
    }
    let message = format!("the seed has {} bytes, not {SEED_BYTES}", seed.len());
    Err(refused(RefusedCode::Invalid, message))
}

fn check_name(name: &str) -> Result<(), Refused> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if (1..=63).contains(&name.len()) && name.bytes().all(plain) {
        return Ok(());
    }
    let message = "the host name is not 1 to 63 letters, digits and hyphens";
    Err(refused(RefusedCode::Invalid, message.into()))
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

/// The files of the names, which stay open: the first write to a file of the template copies it, and
/// its clones need not do that again, nor look for it.
static NAMES: Mutex<Option<[Name; 2]>> = Mutex::new(None);

/// A file of a name, and how long that is.
struct Name {
    file: File,
    length: usize,
}

fn set_names(spec: &RenewSpec) -> io::Result<()> {
    rustix::system::sethostname(spec.hostname.as_bytes())?;
    write_names(&spec.hostname, &spec.machine_id)
}

fn write_names(hostname: &str, machine_id: &[u8; 16]) -> io::Result<()> {
    let mut files = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    let [host, machine] = match &mut *files {
        Some(files) => files,
        None => files.insert([Name::open("/etc/hostname")?, Name::open("/etc/machine-id")?]),
    };
    let id: String = machine_id
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    host.replace(&format!("{hostname}\n"))?;
    machine.replace(&format!("{id}\n"))
}

impl Name {
    fn open(path: &str) -> io::Result<Name> {
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)?;
        Ok(Name { file, length: 0 })
    }

    fn replace(&mut self, text: &str) -> io::Result<()> {
        self.file.write_all_at(text.as_bytes(), 0)?;
        if text.len() < self.length {
            self.file.set_len(text.len() as u64)?;
        }
        self.length = text.len();
        Ok(())
    }
}

/// Gives the files of the names some contents, once before the snapshot.
pub(crate) fn prepare_names() -> io::Result<()> {
    write_names("firelane-0123456789ab", &[0; 16])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_starts_in_a_stale_guest() {
        let renewal = Renewal::default();
        drop(renewal.begin().unwrap());
        renewal.make_stale();
        let code = |refused: Refused| refused.code;
        assert_eq!(renewal.begin().err().map(code), Some(RefusedCode::Stale));
        assert_eq!(
            renewal.require_fresh().err().map(code),
            Some(RefusedCode::Stale)
        );
    }

    #[test]
    fn a_seed_and_a_name_have_their_form() {
        assert!(check_seed(&[7; SEED_BYTES]).is_ok());
        assert!(check_seed(&[7; 8]).is_err());
        assert!(check_name("firelane-1").is_ok());
        for bad in ["", "two words", &"x".repeat(64)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
