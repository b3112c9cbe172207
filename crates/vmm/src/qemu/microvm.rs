//! A running QEMU.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use async_trait::async_trait;
use firelane_sys::cgroup::Cgroups;
use tokio::process::Child;
use tokio::time::timeout;

use super::Qemu;
use super::boot::Kept;
use super::link::{Held, Link};
use super::migration::{self, MigrationError};
use super::qmp::Qmp;
use crate::driver::{
    ControlError, Death, Machine, MicroVm, SaveError, Saved, SnapshotError, SnapshotFiles,
};
use crate::rundir::RunDir;
use crate::tail::Tail;

/// How long a dead VMM's streams may stay open: nobody else has them.
const STREAM_END: Duration = Duration::from_secs(1);

/// A template's snapshot holds nothing of a user.
const PUBLIC: u32 = 0o444;

pub(super) struct QemuVm {
    pub(super) child: Child,
    pub(super) monitor: Qmp,
    pub(super) link: Link,
    /// While it is paused.
    pub(super) held: Option<Held>,
    /// What it is, for the VMM that saves it.
    pub(super) qemu: Qemu,
    pub(super) machine: Machine,
    /// The snapshot that it can become.
    pub(super) snapshot: Option<Kept>,
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
        if self.held.is_none() {
            self.held = Some(self.link.hold().await);
        }
        let stopped = self.monitor.command("stop").await;
        if stopped.is_err() {
            self.held = None;
        }
        stopped.map(drop).map_err(refused)
    }

    async fn resume(&mut self) -> Result<(), ControlError> {
        let refused = |source| ControlError::Refused {
            action: "resume",
            source,
        };
        self.monitor.command("cont").await.map_err(refused)?;
        self.held = None;
        Ok(())
    }

    async fn snapshot(mut self: Box<Self>) -> Result<(), SnapshotError> {
        let Some(Kept { files, state, .. }) = self.snapshot.take() else {
            return Err(SnapshotError::NoPlace);
        };
        let saved = async {
            self.pause().await?;
            save(&mut self.monitor, &state).await
        };
        let saved = saved.await;
        // The VMM maps the memory and could change it until it is gone.
        let ended = self.destroy().await;
        let made = saved
            .and(ended.map_err(SnapshotError::from))
            .and_then(|()| {
                [&files.memory, &files.state]
                    .into_iter()
                    .try_for_each(|path| close_to_writing(path, PUBLIC))
                    .and_then(|()| files.flush())
                    .map_err(SnapshotError::Files)
            });
        if made.is_err() {
            for path in [&files.memory, &files.state] {
                if let Err(error) = fs::remove_file(path) {
                    tracing::warn!(path = %path.display(), %error, "cannot remove half a snapshot");
                }
            }
        }
        made
    }

    async fn save(&mut self, files: &SnapshotFiles) -> Result<Saved, SaveError> {
        self.save_to(files).await
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

async fn save(monitor: &mut Qmp, state: &fs::File) -> Result<(), SnapshotError> {
    migration::save(monitor, state)
        .await
        .map_err(|error| match error {
            MigrationError::Refused(source) => SnapshotError::Refused(source),
            MigrationError::Failed { reason } => SnapshotError::Failed { reason },
        })
}

/// Nobody writes the file any more; `mode` says who reads it.
pub(super) fn close_to_writing(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
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
