//! What a microVM owns on the host, from before its VMM is started until it is gone.
//!
//! ```text
//!   run directory, cgroups, on record ── VMM in its jail, on record ── ended, collected ── removed
//! ```

use std::convert::Infallible;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use firelane_sys::cgroup::{Bounds, Cgroups};
use firelane_sys::jail::{self, Controls, Jail};
use firelane_sys::process::ProcessId;
use firelane_sys::users::User;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use crate::child::Process;
use crate::driver::{BootError, Death};
use crate::hosted::{self, Hosted, Killer};
use crate::rundir::{Record, RunDir};
use crate::tail::Tail;

/// How long a VMM that is about to end may take to.
const GRACE: Duration = Duration::from_millis(500);
/// How often that is looked at.
const POLL: Duration = Duration::from_millis(1);

/// A microVM's things on the host.
pub(crate) struct Owned {
    pub(crate) run_dir: RunDir,
    pub(crate) record: Record,
    /// The user that the VMM becomes, if we may choose.
    pub(crate) user: Option<User>,
    /// The VMM, once it is started.
    pub(crate) child: Option<Process>,
}

impl Owned {
    /// Makes run directory and cgroups. There is no process yet.
    pub(crate) fn make(run_base: &Path, id: &str, bounds: &Bounds) -> Result<Owned, BootError> {
        let run_dir = RunDir::make(run_base, id)?;
        let user = match User::reserve(id) {
            Ok(user) => user,
            Err(error) => {
                let reserved = Err(io::Error::other(error));
                run_dir.remove().map_err(|source| BootError::Step {
                    step: "remove the run directory again",
                    source,
                })?;
                return step("reserve a user for the VMM", reserved);
            }
        };
        let cgroups = Cgroups::make(id, bounds);
        let record = Record {
            vmm: None,
            cgroups,
            hosted: false,
        };
        let owned = Owned {
            run_dir,
            record,
            user,
            child: None,
        };
        // On record before there is a process in them.
        step("record the microVM", owned.run_dir.record(&owned.record))?;
        Ok(owned)
    }

    /// The same for a VMM that firelane-hostd starts, which has its own run directory, user and cgroups
    /// for it: here are only our sockets.
    pub(crate) fn make_hosted(run_base: &Path, id: &str) -> Result<Owned, BootError> {
        let owned = Owned {
            run_dir: RunDir::make(run_base, id)?,
            record: Record {
                hosted: true,
                ..Record::default()
            },
            user: None,
            child: None,
        };
        step("record the microVM", owned.run_dir.record(&owned.record))?;
        Ok(owned)
    }

    /// The number of the user that the VMM becomes, if it does.
    pub(crate) fn user(&self) -> Option<u32> {
        self.user.as_ref().map(User::number)
    }

    /// Starts the VMM with these descriptors under these numbers, and its stdout in `stdout`. Its
    /// stderr comes back.
    pub(crate) fn spawn(
        &mut self,
        start: &Start<'_>,
        mut inherited: Vec<(OwnedFd, i32)>,
        stdout: Stdio,
    ) -> Result<Tail, BootError> {
        if let (Some(user), Start::Jailed { jail, .. }) = (&self.user, start)
            && let Some(number) = jail.kept_descriptor
        {
            inherited.push((step("hold the VMM's user", user.hold())?, number));
        }
        let mut child = step("start the VMM", spawn(start, inherited, stdout))?;
        let stderr = child.stderr.take().map(Tail::of);
        let started = child.id();
        self.child = Some(Process::new(child));
        // Not yet what it keeps: at first its only child may be one that tries something out.
        self.record_process(started)?;
        step("read the VMM's stderr", stderr.ok_or_else(missing))
    }

    /// Has firelane-hostd start the VMM.
    pub(crate) async fn have_started(
        &mut self,
        socket: &Path,
        request: hosted::Request,
    ) -> Result<(), BootError> {
        let (hosted, cgroups) = Hosted::start(socket, request).await?;
        self.child = Some(Process::Hosted(hosted));
        // Not on record: they are hostd's to remove.
        self.record.cgroups = cgroups;
        Ok(())
    }

    /// Puts the VMM on record where it has a keeper: what was started is that, and only once the VMM
    /// answers is it sure that there is one.
    pub(crate) fn record_vmm(&mut self) -> Result<(), BootError> {
        if self
            .child
            .as_mut()
            .is_some_and(|child| child.hosted().is_some())
        {
            // Its record and its sweep are hostd's.
            return Ok(());
        }
        self.record_process(self.child.as_ref().and_then(Process::vmm))
    }

    fn record_process(&mut self, pid: Option<u32>) -> Result<(), BootError> {
        let pid = step("find the VMM", pid.ok_or_else(missing))?;
        self.record.vmm = Some(step("find the VMM", ProcessId::of(pid))?);
        step("record the VMM", self.run_dir.record(&self.record))
    }

    /// The number of the VMM; 0 if there is none.
    pub(crate) fn vmm(&self) -> u32 {
        let child = self.child.as_ref().and_then(Process::vmm);
        child.unwrap_or_default()
    }

    /// Whoever can end the VMM from another thread.
    pub(crate) fn killer(&self) -> io::Result<Killer> {
        match &self.child {
            Some(Process::Hosted(hosted)) => hosted.killer(),
            _ => self.record.vmm.map(Killer::Ours).ok_or_else(missing),
        }
    }

    /// Whether the VMM runs.
    pub(crate) fn lives(&self) -> bool {
        match &self.child {
            Some(Process::Hosted(hosted)) => hosted.lives(),
            _ => self.record.vmm.is_some_and(|vmm| vmm.lives()),
        }
    }

    /// Makes sure that what this host can confine the VMM by is in force, as the kernel tells it.
    pub(crate) async fn confined(&mut self) -> Result<(), BootError> {
        if let Some(hosted) = self.child.as_mut().and_then(Process::hosted) {
            return hosted.confirm().await.map_err(BootError::Hostd);
        }
        let pid = self.child.as_ref().and_then(Process::vmm);
        let pid = step("find the VMM", pid.ok_or_else(missing))?;
        let controls = step("read the VMM's controls", Controls::of(pid))?;
        match controls.lacking() {
            None => Ok(()),
            Some((control, reason)) => Err(BootError::Unconfined {
                control: control.into(),
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
        // A keeper that was killed has told nobody, and its jailer's VMM would go on without a record.
        if let Some(vmm) = self.record.vmm {
            ended(vmm).await?;
        }
        remove(self.record.cgroups, self.run_dir).await
    }

    /// The same after a failure that is told already; what resists is left to the next sweep.
    pub(crate) async fn give_up(self) {
        if let Err(error) = self.remove().await {
            tracing::warn!(%error, "left to the next sweep");
        }
    }
}

/// Removes what a VMM that is gone had on the host. Waits for the last of its threads to leave its cgroups, for some
/// seconds at most, and not on a thread of the runtime; only who drops this on the way waits there.
pub(crate) async fn remove(cgroups: Cgroups, run_dir: RunDir) -> io::Result<()> {
    let (end, ended) = mpsc::channel();
    let _waits = Removing(ended);
    let removing = tokio::task::spawn_blocking(move || {
        let _end: Sender<Infallible> = end;
        cgroups.remove()?;
        run_dir.remove()
    });
    removing.await.unwrap_or_else(|error| Err(error.into()))
}

/// A removal that has begun goes on to its end, also when nobody asks for that any more: a process that ends in the
/// middle of it would leave half.
struct Removing(Receiver<Infallible>);

impl Drop for Removing {
    fn drop(&mut self) {
        // Nothing is ever sent: the other end is gone as soon as the work is.
        let _gone = self.0.recv();
    }
}

/// Kills a process, if it still runs, and waits until it does not.
async fn ended(vmm: ProcessId) -> io::Result<()> {
    vmm.kill()?;
    let gone = async {
        while vmm.lives() {
            sleep(POLL).await;
        }
    };
    let waited = timeout(GRACE, gone).await;
    waited.map_err(|_| io::Error::other(format!("the VMM {} does not end", vmm.pid)))
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

#[cfg(test)]
mod tests {
    use firelane_sys::cgroup::Bounds;

    use super::*;

    /// A microVM that is gone but for its cgroups, and the process that is in those.
    fn held(id: &str, base: &Path) -> Option<(Cgroups, RunDir, Child)> {
        let bounds = Bounds {
            memory_bytes: 64 << 20,
            pids: 8,
            cpu_percent: 100,
        };
        let cgroups = Cgroups::make(id, &bounds);
        if cgroups.folders().is_empty() {
            println!("skipped: this host lets nobody make cgroups");
            return None;
        }
        let mut sleeping = Command::new("sleep");
        let member = sleeping.arg("600").kill_on_drop(true).spawn().unwrap();
        let pid = member.id().unwrap().to_string();
        for file in cgroups.joined_through() {
            std::fs::write(file, &pid).unwrap();
        }
        Some((cgroups, RunDir::make(base, id).unwrap(), member))
    }

    /// One thread runs everything here: if it waited for the cgroups, nothing else would happen first.
    #[tokio::test]
    async fn nobody_waits_for_a_cgroup_that_is_still_in_use() {
        let base = tempfile::tempdir().unwrap();
        let id = format!("remove-{}", std::process::id());
        let Some((cgroups, run_dir, mut member)) = held(&id, base.path()) else {
            return;
        };
        let folders = cgroups.folders().to_vec();
        let removing = remove(cgroups, run_dir);
        tokio::pin!(removing);
        tokio::select! {
            biased;
            removed = &mut removing => panic!("{removed:?} though a process is in it"),
            () = sleep(POLL) => {}
        }
        member.kill().await.unwrap();
        removing.await.unwrap();
        assert!(folders.iter().all(|folder| !folder.exists()));
    }

    #[tokio::test]
    async fn a_removal_that_is_dropped_has_ended() {
        let base = tempfile::tempdir().unwrap();
        let id = format!("dropped-{}", std::process::id());
        let Some((cgroups, run_dir, mut member)) = held(&id, base.path()) else {
            return;
        };
        let (folders, path) = (cgroups.folders().to_vec(), run_dir.path().to_owned());
        assert!(path.exists());
        let removing = timeout(POLL, remove(cgroups, run_dir));
        let ending = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            // Collected by the runtime, when that gets to it.
            member.start_kill()
        });
        assert!(removing.await.is_err(), "a process was in its cgroups");
        ending.join().unwrap().unwrap();
        assert!(folders.iter().all(|folder| !folder.exists()));
        let left: Vec<_> = std::fs::read_dir(base.path()).unwrap().flatten().collect();
        let left = left
            .iter()
            .filter(|entry| entry.file_type().unwrap().is_dir());
        assert_eq!(left.count(), 0);
    }
}
