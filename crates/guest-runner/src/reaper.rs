//! Collects every child of PID 1: the programs of execs, and the orphans they leave.
//!
//! One thread waits for all of them, so no exec may wait for its own. A child is registered under
//! the same lock that the collector takes, so none can end unnoticed between `fork` and
//! registration.

#![expect(
    unsafe_code,
    reason = "signal sets have no safe wrapper without a runtime"
)]

use std::collections::HashMap;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::process::WaitOptions;

use crate::wake::Wake;

/// How a registered child ended; rings its wake when that is known.
pub(crate) struct Watch {
    wake: Mutex<Arc<Wake>>,
    status: Mutex<Option<ExitStatus>>,
}

impl Watch {
    fn new(wake: Arc<Wake>) -> Watch {
        Watch {
            wake: Mutex::new(wake),
            status: Mutex::new(None),
        }
    }

    /// How the child ended, once it has.
    pub(crate) fn status(&self) -> Option<ExitStatus> {
        *lock(&self.status)
    }

    /// Rings another wake from now on; at once, if the child has ended already.
    pub(crate) fn ring_instead(&self, wake: &Arc<Wake>) {
        *lock(&self.wake) = Arc::clone(wake);
        if self.status().is_some() {
            wake.ring();
        }
    }
}

/// The collector of children.
pub(crate) struct Reaper {
    watched: Mutex<HashMap<u32, Arc<Watch>>>,
}

impl Reaper {
    /// Makes SIGCHLD wait for [`Reaper::run`]. Call it before any other thread starts, so that all
    /// inherit the mask.
    pub(crate) fn block_signals() -> io::Result<Reaper> {
        let set = child_signal();
        // SAFETY: `set` is an initialised signal set, and the old mask is not asked for.
        let result =
            unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
        match result {
            0 => Ok(Reaper {
                watched: Mutex::new(HashMap::new()),
            }),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    /// Starts `command`; `wake` rings when the child has ended.
    pub(crate) fn spawn(
        &self,
        command: &mut Command,
        wake: Arc<Wake>,
    ) -> io::Result<(Child, Arc<Watch>)> {
        let mut watched = lock(&self.watched);
        let child = command.spawn()?;
        let watch = Arc::new(Watch::new(wake));
        watched.insert(child.id(), Arc::clone(&watch));
        Ok((child, watch))
    }

    /// Watches a process that somebody else started. Its parent tells how it ends, by
    /// [`Reaper::release`]; if the parent ends before, it becomes our child.
    pub(crate) fn adopt(&self, pid: u32, wake: Arc<Wake>) -> Arc<Watch> {
        let watch = Arc::new(Watch::new(wake));
        lock(&self.watched).insert(pid, Arc::clone(&watch));
        watch
    }

    /// How an adopted process ended.
    pub(crate) fn release(&self, pid: u32, watch: &Arc<Watch>, status: ExitStatus) {
        let mut watched = lock(&self.watched);
        if watched
            .get(&pid)
            .is_some_and(|known| Arc::ptr_eq(known, watch))
        {
            tell(&mut watched, pid, status);
        }
    }

    /// Collects children for ever.
    pub(crate) fn run(&self) -> io::Result<()> {
        let set = child_signal();
        loop {
            let mut signal = 0;
            // SAFETY: both pointers are to initialised locals that live across the call.
            match unsafe { libc::sigwait(&raw const set, &raw mut signal) } {
                0 | libc::EINTR => self.collect()?,
                errno => return Err(io::Error::from_raw_os_error(errno)),
            }
        }
    }

    /// Takes every child that has ended by now.
    fn collect(&self) -> io::Result<()> {
        let mut watched = lock(&self.watched);
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => {
                    let pid = pid.as_raw_nonzero().get().unsigned_abs();
                    tell(&mut watched, pid, ExitStatus::from_raw(status.as_raw()));
                }
                Ok(None) | Err(rustix::io::Errno::CHILD) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

fn tell(watched: &mut HashMap<u32, Arc<Watch>>, pid: u32, status: ExitStatus) {
    if let Some(watch) = watched.remove(&pid) {
        *lock(&watch.status) = Some(status);
        lock(&watch.wake).ring();
    }
}

fn child_signal() -> libc::sigset_t {
    // SAFETY: a signal set is plain data, and `sigemptyset` initialises it.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        set
    }
}

/// A lock that a panicking thread cannot have poisoned: panics abort.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
