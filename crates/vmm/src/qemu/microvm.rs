//! A running QEMU.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use firelane_sys::cgroup::Cgroups;
use firelane_sys::jail::Controls;
use firelane_sys::users::User;

use super::Qemu;
use super::boot::Kept;
use super::link::{Held, Link};
use super::migration::{self, MigrationError};
use super::qmp::{Qmp, QmpError};
use crate::child::Process;
use crate::driver::{
    ControlError, Death, Machine, MicroVm, SaveError, Saved, SnapshotError, SnapshotFiles,
};
use crate::owned;
use crate::rundir::RunDir;
use crate::tail::Tail;

/// A template's snapshot holds nothing of a user.
const PUBLIC: u32 = 0o444;

pub(super) struct QemuVm {
    pub(super) child: Process,
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
    /// Nobody else's until the rest is gone.
    pub(super) user: Option<User>,
    pub(super) stderr: Tail,
    pub(super) console: Tail,
}

#[async_trait]
impl MicroVm for QemuVm {
    fn pid(&self) -> u32 {
        self.child.vmm().unwrap_or(0)
    }

    fn controls(&self) -> io::Result<Controls> {
        self.child.controls()
    }

    fn vsock_path(&self) -> &Path {
        &self.vsock
    }

    fn cgroups(&self) -> &Cgroups {
        &self.cgroups
    }

    async fn pause(&mut self) -> Result<(), ControlError> {
        let refused = |source: QmpError| ControlError::Refused {
            action: "pause",
            source: source.into(),
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
        let refused = |source: QmpError| ControlError::Refused {
            action: "resume",
            source: source.into(),
        };
        self.monitor.command("cont").await.map_err(refused)?;
        self.held = None;
        Ok(())
    }

    async fn snapshot(mut self: Box<Self>) -> Result<(), SnapshotError> {
        let Some(Kept { files, state, .. }) = self.snapshot.take() else {
            self.destroy().await?;
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
        self.child.death(&mut self.stderr, &mut self.console).await
    }

    async fn destroy(self: Box<Self>) -> Result<(), ControlError> {
        let mut vm = *self;
        vm.child.end().await.map_err(ControlError::Cleanup)?;
        owned::remove(vm.cgroups, vm.run_dir)
            .await
            .map_err(ControlError::Cleanup)?;
        drop(vm.user);
        Ok(())
    }
}

async fn save(monitor: &mut Qmp, state: &fs::File) -> Result<(), SnapshotError> {
    migration::save(monitor, state)
        .await
        .map_err(|error| match error {
            MigrationError::Refused(source) => SnapshotError::Refused(source.into()),
            MigrationError::Failed { reason } => SnapshotError::Failed { reason },
        })
}

/// Nobody writes the file any more; `mode` says who reads it.
pub(super) fn close_to_writing(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}
