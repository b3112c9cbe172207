//! A running QEMU.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use async_trait::async_trait;
use firelane_sys::cgroup::Cgroups;
use tokio::process::Child;
use tokio::time::timeout;

use super::link::Link;
use super::qmp::Qmp;
use crate::driver::{ControlError, Death, MicroVm};
use crate::rundir::RunDir;
use crate::tail::Tail;

/// How long a dead VMM's streams may stay open: nobody else has them.
const STREAM_END: Duration = Duration::from_secs(1);

pub(super) struct QemuVm {
    pub(super) child: Child,
    pub(super) monitor: Qmp,
    pub(super) _link: Link,
    pub(super) vsock: PathBuf,
    pub(super) run_dir: RunDir,
    pub(super) cgroups: Cgroups,
    pub(super) stderr: Tail,
    pub(super) console: Tail,
}

#[async_trait]
impl MicroVm for QemuVm {
    fn pid(&self) -> u32 {
        self.child.id().unwrap_or(0)
    }

    fn vsock_path(&self) -> &Path {
        &self.vsock
    }

    fn cgroups(&self) -> &Cgroups {
        &self.cgroups
    }

    async fn pause(&mut self) -> Result<(), ControlError> {
        let refused = |source| ControlError::Refused {
            action: "pause",
            source,
        };
        self.monitor
            .command("stop")
            .await
            .map(drop)
            .map_err(refused)
    }

    async fn resume(&mut self) -> Result<(), ControlError> {
        let refused = |source| ControlError::Refused {
            action: "resume",
            source,
        };
        self.monitor
            .command("cont")
            .await
            .map(drop)
            .map_err(refused)
    }

    async fn died(&mut self) -> Death {
        death(&mut self.child, &mut self.stderr, &mut self.console).await
    }

    async fn destroy(self: Box<Self>) -> Result<(), ControlError> {
        let mut vm = *self;
        end(&mut vm.child).await.map_err(ControlError::Cleanup)?;
        vm.cgroups.remove().map_err(ControlError::Cleanup)?;
        vm.run_dir.remove().map_err(ControlError::Cleanup)
    }
}

/// Kills and collects the process, unless it has ended and was collected already.
pub(super) async fn end(child: &mut Child) -> io::Result<()> {
    match child.try_wait()? {
        Some(_) => Ok(()),
        None => child.kill().await,
    }
}

/// Waits until the process has ended, and collects what it said.
pub(super) async fn death(child: &mut Child, stderr: &mut Tail, console: &mut Tail) -> Death {
    let status = child.wait().await;
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

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}
