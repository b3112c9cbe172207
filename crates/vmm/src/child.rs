//! The process of a VMM: how it ends, and how it is ended.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use firelane_sys::jail;
use firelane_sys::process::ProcessId;
use tokio::process::{Child, ChildStdout};
use tokio::time::timeout;

use crate::driver::Death;
use crate::tail::Tail;

/// How long a dead VMM's streams may stay open: nobody else has them.
const STREAM_END: Duration = Duration::from_secs(1);
/// How long a killed VMM's keeper may take to end as well.
const KEEPER_END: Duration = Duration::from_secs(2);

/// A VMM, or the process that keeps one. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Process(Child);

impl Process {
    /// Takes over a process that was started to be killed when it is dropped.
    pub(crate) fn new(child: Child) -> Process {
        Process(child)
    }

    /// The VMM's own number: that of the process that we started, or of the one that it keeps; `None`
    /// once it was collected.
    pub(crate) fn vmm(&self) -> Option<u32> {
        let pid = self.0.id()?;
        Some(jail::vmm_of(pid).unwrap_or(pid))
    }

    /// Its stdout, if that is a pipe that nobody has taken.
    pub(crate) fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.0.stdout.take()
    }

    /// Waits until it ends by itself.
    pub(crate) async fn ended(&mut self) {
        // However it ended is told by `death`.
        let _ = self.0.wait().await;
    }

    /// Kills and collects it, unless it has ended and was collected already. If it keeps a VMM, that is
    /// killed first: nobody else would.
    pub(crate) async fn end(&mut self) -> io::Result<()> {
        if self.0.try_wait()?.is_some() {
            return Ok(());
        }
        if self.kill_kept()? {
            // It ends as its VMM did; if it does not, it is ended.
            if let Ok(ended) = timeout(KEEPER_END, self.0.wait()).await {
                return ended.map(drop);
            }
        }
        self.0.kill().await
    }

    /// Kills the VMM that it keeps, if it keeps one.
    fn kill_kept(&self) -> io::Result<bool> {
        let vmm = self.0.id().and_then(jail::vmm_of);
        match vmm.and_then(|pid| ProcessId::of(pid).ok()) {
            Some(vmm) => vmm.kill().map(|()| true),
            None => Ok(false),
        }
    }

    /// Waits until it has ended, and collects what it said.
    pub(crate) async fn death(&mut self, stderr: &mut Tail, console: &mut Tail) -> Death {
        let status = self.0.wait().await;
        // What they said before the end is kept in any case.
        let _ = timeout(STREAM_END, async {
            stderr.ended().await;
            console.ended().await;
        })
        .await;
        Death {
            status: status.map_or_else(|error| error.to_string(), describe),
            stderr: stderr.text(),
            console: console.text(),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The process itself is killed as its handle is dropped.
        if let Err(error) = self.kill_kept() {
            tracing::warn!(%error, "cannot end a VMM, which is left to the next sweep");
        }
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}
