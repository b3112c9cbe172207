//! The end of a microVM: collected, and everything that it had removed.

use std::io;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use firelane_host_proto::message::{Code, Refusal};
use firelane_launch::rundir::RunDir;
use firelane_sys::cgroup::Cgroups;
use firelane_sys::jail;
use firelane_sys::process::ProcessId;
use firelane_sys::users::User;

use crate::refuse::{failed, refuse};
use crate::serve::Shared;
use crate::table::{Ended, Entry, Life};

/// How long a killed VMM may take until nothing of it is left.
const END_DEADLINE: Duration = Duration::from_secs(20);
/// How long a VMM may outlive its keeper, which has just ended.
const ORPHAN_DEADLINE: Duration = Duration::from_secs(5);

/// What a microVM has on the host beside its process.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) run_dir: RunDir,
    pub(crate) cgroups: Cgroups,
    /// Free for others when all the rest is gone.
    pub(crate) user: Option<User>,
}

impl Made {
    /// Removes it; its processes must have ended.
    pub(crate) fn remove(self) -> io::Result<()> {
        self.cgroups.remove()?;
        self.run_dir.remove()
    }
}

/// A VMM that runs, and what is to be removed after it.
#[derive(Debug)]
pub(crate) struct Collected {
    /// The VMM, or its keeper.
    pub(crate) child: Child,
    pub(crate) vmm: ProcessId,
    pub(crate) made: Made,
    /// Closed when all is gone: so the client learns of that.
    pub(crate) life: UnixStream,
}

/// Waits in a thread of its own until the VMM ends, and removes what it had.
pub(crate) fn collect(
    shared: &Arc<Shared>,
    entry: &Arc<Entry>,
    collected: Collected,
) -> io::Result<()> {
    let (shared, entry) = (Arc::clone(shared), Arc::clone(entry));
    let name = format!("vmm {}", collected.vmm.pid);
    let collecting = move || {
        let Collected {
            mut child,
            vmm,
            made,
            life,
        } = collected;
        let status = child
            .wait()
            .map_or_else(|error| error.to_string(), describe);
        let removed = orphan(vmm).and_then(|()| made.remove());
        let left = removed.err().map(|error| error.to_string());
        shared.audit.own("ended", Some(&entry.id), left.as_deref());
        entry.set(Life::Ended(Ended { status, left }));
        drop(life);
    };
    thread::Builder::new()
        .name(name)
        .stack_size(crate::serve::STACK_BYTES)
        .spawn(collecting)
        .map(drop)
}

/// A VMM whose keeper was killed by somebody is not collected with it.
fn orphan(vmm: ProcessId) -> io::Result<()> {
    vmm.kill()?;
    let deadline = Instant::now() + ORPHAN_DEADLINE;
    while vmm.lives() {
        if Instant::now() > deadline {
            return Err(io::Error::other("the VMM does not end"));
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Ends a process that was started and is no microVM yet, and removes what it had.
pub(crate) fn give_up(mut child: Child, made: Made) -> io::Result<()> {
    // More than once: its first child may be one that only tries something out, and then it goes on.
    while child.try_wait()?.is_none() {
        match jail::kept_by(child.id()) {
            // It ends as what it keeps does.
            Some(kept) => kept.kill()?,
            None => child.kill()?,
        }
        thread::sleep(Duration::from_millis(1));
    }
    made.remove()
}

/// Ends a microVM and forgets it.
pub(crate) fn stop(shared: &Shared, entry: &Arc<Entry>) -> Result<Ended, Refusal> {
    match entry.life() {
        Life::Starting => {
            let cause = format!("microVM {} is being started", entry.id);
            return Err(refuse(Code::Busy, cause));
        }
        Life::Running(running) => running.vmm.kill().map_err(failed("end the VMM"))?,
        Life::Ended(_) => {}
    }
    let Some(ended) = entry.ended(END_DEADLINE) else {
        let cause = format!("the VMM of {} does not end", entry.id);
        return Err(refuse(Code::Failed, cause));
    };
    shared.table.forget(entry);
    match &ended.left {
        None => Ok(ended),
        Some(left) => Err(refuse(
            Code::Failed,
            format!("the VMM ended, and something is left to the next sweep: {left}"),
        )),
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}
