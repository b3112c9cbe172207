//! What a microVM owns on the host, from before its VMM is started until it is gone.
//!
//! ```text
//!   run directory, cgroups, on record ── VMM in its jail, on record ── ended, collected ── removed
//! ```

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use firelane_sys::cgroup::{Bounds, Cgroups};
use firelane_sys::jail::{self, Controls, Jail};
use firelane_sys::process::ProcessId;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::child::Process;
use crate::driver::{BootError, Death};
use crate::rundir::{Record, RunDir};
use crate::tail::Tail;

/// First of the user numbers that VMMs run as. Source: systemd, "Users, Groups, UIDs and GIDs on
/// systemd Systems": numbers from here up to 2^31 are not assigned to anything.
const FIRST_USER: u32 = 0x7000_0000;
/// How many of them are used.
const USERS: u32 = 1 << 20;
/// How long a VMM that is about to end may take to.
const GRACE: Duration = Duration::from_millis(500);

/// A microVM's things on the host.
pub(crate) struct Owned {
    pub(crate) run_dir: RunDir,
    pub(crate) record: Record,
    /// The VMM, once it is started.
    pub(crate) child: Option<Process>,
}

impl Owned {
    /// Makes run directory and cgroups. There is no process yet.
    pub(crate) fn make(run_base: &Path, id: &str, bounds: &Bounds) -> Result<Owned, BootError> {
        let run_dir = RunDir::make(run_base, id)?;
        let cgroups = Cgroups::make(id, bounds);
        let record = Record { vmm: None, cgroups };
        let owned = Owned {
            run_dir,
            record,
            child: None,
        };
        // On record before there is a process in them.
        step("record the microVM", owned.run_dir.record(&owned.record))?;
        Ok(owned)
    }

    /// Starts the VMM with these descriptors under these numbers, and its stdout in `stdout`. Its
    /// stderr comes back.
    pub(crate) fn spawn(
        &mut self,
        start: &Start<'_>,
        inherited: Vec<(OwnedFd, i32)>,
        stdout: Stdio,
    ) -> Result<Tail, BootError> {
        let mut child = step("start the VMM", spawn(start, inherited, stdout))?;
        let stderr = child.stderr.take().map(Tail::of);
        let started = child.id();
        self.child = Some(Process::new(child));
        // Not yet what it keeps: at first its only child may be one that tries something out.
        self.record_process(started)?;
        step("read the VMM's stderr", stderr.ok_or_else(missing))
    }

    /// Puts the VMM on record where it has a keeper: what was started is that, and only once the VMM
    /// answers is it sure that there is one.
    pub(crate) fn record_vmm(&mut self) -> Result<(), BootError> {
        self.record_process(self.child.as_ref().and_then(Process::vmm))
    }

    fn record_process(&mut self, pid: Option<u32>) -> Result<(), BootError> {
        let pid = step("find the VMM", pid.ok_or_else(missing))?;
        self.record.vmm = Some(step("find the VMM", ProcessId::of(pid))?);
        step("record the VMM", self.run_dir.record(&self.record))
    }

    /// The number of the VMM; 0 before it is on record.
    pub(crate) fn vmm(&self) -> u32 {
        self.record.vmm.map_or(0, |vmm| vmm.pid)
    }

    /// Whether the VMM runs.
    pub(crate) fn lives(&self) -> bool {
        self.record.vmm.is_some_and(|vmm| vmm.lives())
    }

    /// Makes sure that what this host can confine the VMM by is in force, as the kernel tells it.
    pub(crate) fn confined(&self) -> Result<(), BootError> {
        let pid = self.child.as_ref().and_then(Process::vmm);
        let pid = step("find the VMM", pid.ok_or_else(missing))?;
        let controls = step("read the VMM's controls", Controls::of(pid))?;
        match controls.lacking() {
            None => Ok(()),
            Some((control, reason)) => Err(BootError::Unconfined {
                control,
                reason: reason.into(),
            }),
        }
    }

    /// Waits until the VMM ends by itself; for ever, if there is none. How it ended is told by
    /// [`Owned::died`].
    pub(crate) async fn ended(&mut self) {
        match &mut self.child {
            Some(child) => child.ended().await,
            None => std::future::pending().await,
        }
    }

    /// How the VMM ended, if it has, or is just about to.
    pub(crate) async fn died(&mut self, stderr: &mut Tail, console: &mut Tail) -> Option<Death> {
        let child = self.child.as_mut()?;
        timeout(GRACE, child.death(stderr, console)).await.ok()
    }

    /// If the VMM has died, that is the error and not what followed from it.
    pub(crate) async fn explain(
        &mut self,
        error: BootError,
        stderr: &mut Tail,
        console: &mut Tail,
    ) -> BootError {
        match self.died(stderr, console).await {
            Some(death) => BootError::Died(death),
            None => error,
        }
    }

    /// Ends the VMM and removes everything.
    pub(crate) async fn remove(self) -> io::Result<()> {
        if let Some(mut child) = self.child {
            child.end().await?;
        }
        self.record.cgroups.remove()?;
        self.run_dir.remove()
    }

    /// The same after a failure that is told already; what resists is left to the next sweep.
    pub(crate) async fn give_up(self) {
        if let Err(error) = self.remove().await {
            tracing::warn!(%error, "left to the next sweep");
        }
    }
}

/// How a VMM is started.
pub(crate) enum Start<'a> {
    /// Through a program that enters the jail.
    Jailed { program: &'a Path, jail: &'a Jail },
    /// As it is, with all our rights: to measure what a jail costs, and for VMMs that are not real.
    Plain {
        program: &'a Path,
        args: &'a [String],
    },
}

fn spawn(start: &Start<'_>, inherited: Vec<(OwnedFd, i32)>, stdout: Stdio) -> io::Result<Child> {
    let mut command = match start {
        Start::Jailed { program, jail } => {
            let description = serde_json::to_string(jail).map_err(io::Error::other)?;
            let mut command = Command::new(program);
            command.arg(jail::ARGUMENT).arg(description);
            command
        }
        Start::Plain { program, args } => {
            let mut command = Command::new(program);
            command.args(*args);
            command
        }
    };
    command
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mappings = inherited
        .into_iter()
        .map(|(parent_fd, child_fd)| FdMapping {
            parent_fd,
            child_fd,
        })
        .collect();
    command.fd_mappings(mappings).map_err(io::Error::other)?;
    command.spawn()
}

/// The user that a microVM's VMM becomes, if we may: one of its own, so that no VMM can touch
/// another's process.
pub(crate) fn user_of(id: &str) -> Option<u32> {
    let number = u32::try_from(hash(id) % u64::from(USERS)).expect("the remainder is below 2^20");
    let root = rustix::process::geteuid().is_root();
    root.then_some(FIRST_USER + number)
}

/// Files and folders of the host that there are.
pub(crate) fn existing(paths: &[&str]) -> Vec<PathBuf> {
    let paths = paths.iter().map(PathBuf::from);
    paths.filter(|path| path.exists()).collect()
}

/// FNV-1a, 64 bits. Nothing depends on it being hard to guess.
pub(crate) fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

pub(crate) fn missing() -> io::Error {
    io::Error::other("the process has none")
}

pub(crate) fn step<T>(step: &'static str, result: io::Result<T>) -> Result<T, BootError> {
    result.map_err(|source| BootError::Step { step, source })
}
