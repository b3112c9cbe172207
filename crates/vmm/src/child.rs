//! The process of a VMM: how it ends, and how it is ended.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use firelane_sys::jail::{self, Controls};
use tokio::process::{Child, ChildStdout};
use tokio::time::timeout;

use crate::driver::Death;
use crate::hosted::Hosted;
use crate::tail::Tail;

/// How long a dead VMM's streams may stay open: nobody else has them.
const STREAM_END: Duration = Duration::from_secs(1);
/// How long a killed VMM's keeper may take to end as well.
const KEEPER_END: Duration = Duration::from_secs(2);

/// A VMM. Dropped, it is killed.
#[derive(Debug)]
pub(crate) enum Process {
    /// It, or the process that keeps it, is our child.
    Ours(Child),
    /// firelane-hostd has started it.
    Hosted(Hosted),
}

impl Process {
    /// Takes over a process that was started to be killed when it is dropped.
    pub(crate) fn new(child: Child) -> Process {
        Process::Ours(child)
    }

    /// What is known of it, if it is firelane-hostd's.
    pub(crate) fn hosted(&mut self) -> Option<&mut Hosted> {
        match self {
            Process::Ours(_) => None,
            Process::Hosted(hosted) => Some(hosted),
        }
    }

    /// The VMM's own number: that of the process that we started, or of the one that it keeps; `None`
    /// once it was collected.
    pub(crate) fn vmm(&self) -> Option<u32> {
        match self {
            Process::Ours(child) => {
                let pid = child.id()?;
                Some(jail::vmm_of(pid).unwrap_or(pid))
            }
            Process::Hosted(hosted) => Some(hosted.pid()),
        }
    }

    /// What it is confined by, as the kernel tells it; hostd's, as it was told hostd.
    pub(crate) fn controls(&self) -> io::Result<Controls> {
        match self {
            Process::Ours(_) => Controls::of(self.vmm().unwrap_or(0)),
            Process::Hosted(hosted) => Ok(hosted.controls()),
        }
    }

    /// Its stdout, if that is a pipe that nobody has taken.
    pub(crate) fn take_stdout(&mut self) -> Option<ChildStdout> {
        match self {
            Process::Ours(child) => child.stdout.take(),
            Process::Hosted(_) => None,
        }
    }

    /// Waits until it ends by itself.
    pub(crate) async fn ended(&mut self) {
        match self {
            // However it ended is told by `death`.
            Process::Ours(child) => drop(child.wait().await),
            Process::Hosted(hosted) => hosted.ended().await,
        }
    }

    /// Kills and collects it, unless it has ended and was collected already. If it keeps a VMM, that is
    /// killed first: nobody else would.
    pub(crate) async fn end(&mut self) -> io::Result<()> {
        let child = match self {
            Process::Ours(child) => child,
            Process::Hosted(hosted) => return hosted.stop().await.map(drop),
        };
        if child.try_wait()?.is_some() {
            return Ok(());
        }
        if kill_kept(child)? {
            // It ends as its VMM did; if it does not, it is ended.
            if let Ok(ended) = timeout(KEEPER_END, child.wait()).await {
                return ended.map(drop);
            }
        }
        child.kill().await
    }

    /// Waits until it has ended, and collects what it said.
    pub(crate) async fn death(&mut self, stderr: &mut Tail, console: &mut Tail) -> Death {
        let status = match self {
            Process::Ours(child) => child.wait().await.map(describe),
            Process::Hosted(hosted) => {
                hosted.ended().await;
                hosted.stop().await
            }
        };
        // What they said before the end is kept in any case.
        let _ = timeout(STREAM_END, async {
            stderr.ended().await;
            console.ended().await;
        })
        .await;
        Death {
            status: status.unwrap_or_else(|error| error.to_string()),
            stderr: stderr.text(),
            console: console.text(),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The process itself is killed as its handle is dropped; hostd's with the connection.
        let Process::Ours(child) = self else { return };
        if let Err(error) = kill_kept(child) {
            tracing::warn!(%error, "cannot end a VMM, which is left to the next sweep");
        }
    }
}

/// Kills the VMM that a process keeps, if it keeps one.
fn kill_kept(child: &Child) -> io::Result<bool> {
    match child.id().and_then(jail::kept_by) {
        Some(vmm) => vmm.kill().map(|()| true),
        None => Ok(false),
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}
