//! A running Firecracker.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use firelane_host_proto::message::Role;
use firelane_sys::cgroup::Cgroups;
use firelane_sys::jail::Controls;
use firelane_sys::process::ProcessId;
use rustix::fs::OFlags;
use tokio::time::Instant;

use super::Firecracker;
use super::api::{Api, ApiError, QUICK};
use super::exit;
use super::launch::Launched;
use super::pager::Pager;
use super::requests::{SnapshotKind, VmState};
use super::save::{Place, Written, host_swaps};
use super::sight::Sight;
use crate::child::Process;
use crate::driver::{
    ControlError, Death, Machine, MicroVm, Refusal, SaveError, Saved, SnapshotError, SnapshotFiles,
};
use crate::owned::Owned;
use crate::tail::Tail;

/// Whether the processors stand still, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pause {
    No,
    /// The whole VMM does, by a signal.
    Stopped,
    /// The VMM has paused them.
    Paused,
}

/// Where a microVM came from.
pub(super) enum Origin {
    /// It was booted.
    Booted,
    /// It was booted to become a snapshot there.
    Template(Place),
    /// It was restored: memory that it has not in its own pages is in the snapshot, and handed out by somebody, if it
    /// is not mapped.
    Restored(Option<Pager>),
}

pub(super) struct FirecrackerVm {
    owned: Owned,
    api: Api,
    pause: Pause,
    /// Pausing means to stop the process, because the VMM's own way would cut the guest off.
    stops: bool,
    origin: Origin,
    sound_diffs: bool,
    memory_mib: u32,
    folder: PathBuf,
    sight: Sight,
    vsock: Socket,
    stderr: Tail,
    console: Tail,
}

impl FirecrackerVm {
    /// Takes over what was started.
    pub(super) fn new(
        firecracker: &Firecracker,
        machine: &Machine,
        launched: Launched,
        vsock: Socket,
        origin: Origin,
    ) -> FirecrackerVm {
        let Launched {
            owned,
            mut api,
            folder,
            stderr,
            console,
        } = launched;
        api.started();
        FirecrackerVm {
            owned,
            api,
            pause: Pause::No,
            stops: !firecracker.version().resumes_vsock(),
            origin,
            sound_diffs: firecracker.version().has_sound_diffs(),
            memory_mib: machine.memory_mib,
            folder,
            sight: firecracker.sight(),
            vsock,
            stderr,
            console,
        }
    }

    /// A Diff holds all there is only of a guest that was booted, and only if no page was put aside.
    fn kind(&self) -> SnapshotKind {
        if matches!(self.origin, Origin::Restored(_)) || !self.sound_diffs || host_swaps() {
            SnapshotKind::Full
        } else {
            SnapshotKind::Diff
        }
    }

    fn pager(&self) -> Option<&Pager> {
        match &self.origin {
            Origin::Restored(pager) => pager.as_ref(),
            Origin::Booted | Origin::Template(_) => None,
        }
    }

    /// Stops the process, or has it go on.
    async fn signal(&mut self, stop: bool) -> Result<(), Refusal> {
        if let Some(hosted) = self.owned.child.as_mut().and_then(Process::hosted) {
            return Ok(hosted.set_still(stop).await?);
        }
        let vmm = ProcessId::of(self.pid())?;
        let sent = match stop {
            true => vmm.stop(),
            false => vmm.go_on(),
        };
        Ok(sent?)
    }

    /// Pauses it in the VMM's own way, which a snapshot needs. One that was stopped runs for a moment.
    async fn pause_for_snapshot(&mut self) -> Result<(), ControlError> {
        match self.pause {
            Pause::Paused => return Ok(()),
            Pause::Stopped => self.signal(false).await.map_err(refused("pause"))?,
            Pause::No => {}
        }
        self.set_state("Paused").await.map_err(refused("pause"))?;
        self.pause = Pause::Paused;
        Ok(())
    }

    async fn set_state(&mut self, state: &'static str) -> Result<(), ApiError> {
        self.api.patch("/vm", &VmState { state }, QUICK).await
    }

    async fn write_down(&mut self, files: &SnapshotFiles) -> Result<(), SaveError> {
        let kind = self.kind();
        let written = Written::of(&self.folder, self.sight, Role::Folder);
        let done = written.write(&mut self.api, kind, self.memory_mib).await;
        let files = files.clone();
        let copied = match done {
            Ok(()) => {
                let from = written.clone();
                let copying = tokio::task::spawn_blocking(move || {
                    let copied = from.copy_to(&files);
                    if copied.is_err() {
                        for path in [&files.memory, &files.state] {
                            let _ = std::fs::remove_file(path);
                        }
                    }
                    copied.map_err(|error| match error.kind() {
                        io::ErrorKind::StorageFull => SaveError::NoSpace {
                            path: files.memory.clone(),
                        },
                        _ => SaveError::Files(error),
                    })
                });
                copying
                    .await
                    .unwrap_or_else(|error| Err(SaveError::Files(io::Error::other(error))))
            }
            Err(error) => Err(SaveError::Refused(error.into())),
        };
        if copied.is_err() {
            written.discard();
        }
        copied
    }
}

#[async_trait]
impl MicroVm for FirecrackerVm {
    fn pid(&self) -> u32 {
        let child = self.owned.child.as_ref();
        child.and_then(Process::vmm).unwrap_or(0)
    }

    fn controls(&self) -> io::Result<Controls> {
        let child = self.owned.child.as_ref();
        child.map_or_else(|| Controls::of(self.pid()), Process::controls)
    }

    fn vsock_path(&self) -> &Path {
        &self.vsock.path
    }

    fn cgroups(&self) -> &Cgroups {
        &self.owned.record.cgroups
    }

    async fn pause(&mut self) -> Result<(), ControlError> {
        self.pause = match (self.pause, self.stops) {
            (Pause::No, true) => {
                self.signal(true).await.map_err(refused("pause"))?;
                Pause::Stopped
            }
            (Pause::No, false) => {
                self.set_state("Paused").await.map_err(refused("pause"))?;
                Pause::Paused
            }
            (paused, _) => paused,
        };
        if let Some(pager) = self.pager() {
            pager.set_paused(true);
        }
        Ok(())
    }

    async fn resume(&mut self) -> Result<(), ControlError> {
        match self.pause {
            Pause::No => {}
            Pause::Stopped => self.signal(false).await.map_err(refused("resume"))?,
            Pause::Paused => self.set_state("Resumed").await.map_err(refused("resume"))?,
        }
        self.pause = Pause::No;
        if let Some(pager) = self.pager() {
            pager.set_paused(false);
        }
        Ok(())
    }

    async fn snapshot(mut self: Box<Self>) -> Result<(), SnapshotError> {
        let Origin::Template(place) = std::mem::replace(&mut self.origin, Origin::Booted) else {
            self.destroy().await?;
            return Err(SnapshotError::NoPlace);
        };
        let saved = async {
            self.pause_for_snapshot().await?;
            let (kind, memory_mib) = (self.kind(), self.memory_mib);
            let written = Written::of(place.folder(), self.sight, Role::Snapshot);
            let saved = written.write(&mut self.api, kind, memory_mib).await;
            saved.map_err(|error| SnapshotError::Refused(error.into()))
        };
        let saved: Result<(), SnapshotError> = saved.await;
        // It could write the files until it is gone.
        let ended = self.destroy().await;
        saved.and(ended.map_err(SnapshotError::from))?;
        let files = place.files().clone();
        let kept = place.keep().and_then(|()| files.flush());
        kept.map_err(|error| {
            for path in [&files.memory, &files.state] {
                let _ = std::fs::remove_file(path);
            }
            SnapshotError::Files(error)
        })
    }

    async fn save(&mut self, files: &SnapshotFiles) -> Result<Saved, SaveError> {
        let (before, begun) = (self.pause, Instant::now());
        self.pause_for_snapshot().await?;
        let saved = self.write_down(files).await;
        // Whatever came of it, the microVM goes on as it was.
        let resumed = match before {
            Pause::No => self.resume().await,
            Pause::Stopped | Pause::Paused => Ok(()),
        };
        let stood = begun.elapsed();
        saved?;
        resumed?;
        Ok(Saved { stood })
    }

    fn snapshot_fault(&self) -> Option<Refusal> {
        let fault = self.pager()?.snapshot_fault()?;
        Some(fault.into())
    }

    async fn died(&mut self) -> Death {
        let death = match &mut self.owned.child {
            Some(child) => {
                let death = child.death(&mut self.stderr, &mut self.console);
                exit::explain(death.await)
            }
            None => std::future::pending().await,
        };
        match self.pager().and_then(Pager::failure) {
            Some(failure) => Death {
                status: format!("{}: {}", death.status, chain(&*failure)),
                ..death
            },
            None => death,
        }
    }

    async fn destroy(self: Box<Self>) -> Result<(), ControlError> {
        let removed = self.owned.remove().await;
        // It could not be told apart from a fault before its VMM is gone.
        if let Origin::Restored(Some(pager)) = self.origin {
            pager.end().await;
        }
        removed.map_err(ControlError::Cleanup)
    }
}

/// An error with what caused it.
fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {}", chain(cause)),
        None => error.to_string(),
    }
}

fn refused<E: Into<Refusal>>(action: &'static str) -> impl FnOnce(E) -> ControlError {
    move |source| ControlError::Refused {
        action,
        source: source.into(),
    }
}

/// A socket that the VMM made in its folder, held open: a VMM that was taken over can put something
/// else in its place, but cannot have us connect to that.
pub(super) struct Socket {
    path: PathBuf,
    _file: File,
}

impl Socket {
    pub(super) fn open(path: &Path) -> io::Result<Socket> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        let mut options = File::options();
        options.read(true).custom_flags(flags.bits().cast_signed());
        let file = options.open(path)?;
        if !file.metadata()?.file_type().is_socket() {
            let what = format!("{} is no socket", path.display());
            return Err(io::Error::other(what));
        }
        Ok(Socket {
            path: format!("/proc/self/fd/{}", file.as_raw_fd()).into(),
            _file: file,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}
