//! A driver whose VMMs cut their guests off when they save them, as Firecracker does: another one behind relays.
//!
//! ```text
//!   host ── socket of ours ── relay ── the microVM's own socket
//!                               ╳ cut while it is saved
//! ```
//!
//! So what a host has to do with such a VMM is shown with guests that this machine can run.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use firelane_sys::cgroup::Cgroups;
use firelane_sys::jail::Controls;
use firelane_vmm::driver::{
    Acceleration, BootError, ControlError, Death, Driver, DriverKind, Identity, Machine, MicroVm,
    Refusal, SaveError, Saved, SnapshotError, SnapshotFiles, StandBy,
};
use firelane_vmm::timeline::Timeline;
use tokio::io::copy_bidirectional;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::{JoinHandle, JoinSet};

/// What becomes of microVMs that are saved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fate {
    /// They are saved, and cut off for that.
    #[default]
    Saved,
    /// They are cut off and not saved.
    NotSaved,
    /// They are cut off, not saved, and no connection is answered any more.
    Deaf,
}

/// The driver.
pub struct Cutting {
    driver: Arc<dyn Driver>,
    relays: Arc<Relays>,
}

/// Where relays are made.
struct Relays {
    folder: PathBuf,
    made: AtomicU64,
    fate: Mutex<Fate>,
}

impl Cutting {
    /// This driver's microVMs, behind relays whose sockets are in `folder`.
    #[must_use]
    pub fn new(driver: Arc<dyn Driver>, folder: &Path) -> Cutting {
        Cutting {
            driver,
            relays: Arc::new(Relays {
                folder: folder.into(),
                made: AtomicU64::new(0),
                fate: Mutex::default(),
            }),
        }
    }

    /// What becomes of microVMs that are saved from now on.
    pub fn set_fate(&self, fate: Fate) {
        *self.relays.lock() = fate;
    }
}

impl Relays {
    fn lock(&self) -> std::sync::MutexGuard<'_, Fate> {
        self.fate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn before(
        self: Arc<Self>,
        inner: Box<dyn MicroVm>,
    ) -> Result<Box<dyn MicroVm>, BootError> {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let path = self.folder.join(format!("relay-{number}"));
        match Relay::start(path, inner.vsock_path()) {
            Ok(relay) => Ok(Box::new(CutVm {
                inner,
                relay,
                relays: self,
            })),
            Err(source) => {
                let destroyed = inner.destroy().await.map_err(io::Error::other);
                let step = "make a relay";
                let source = destroyed.err().unwrap_or(source);
                Err(BootError::Step { step, source })
            }
        }
    }
}

/// Passes connections on.
struct Relay {
    path: PathBuf,
    to: PathBuf,
    task: JoinHandle<()>,
}

impl Relay {
    fn start(path: PathBuf, to: &Path) -> io::Result<Relay> {
        let task = tokio::spawn(pass_on(UnixListener::bind(&path)?, to.to_owned()));
        let to = to.to_owned();
        Ok(Relay { path, to, task })
    }

    /// Drops all connections; others are taken, unless it is deaf from now on.
    fn cut(&mut self, deaf: bool) -> io::Result<()> {
        self.task.abort();
        std::fs::remove_file(&self.path)?;
        let listener = UnixListener::bind(&self.path)?;
        self.task = match deaf {
            true => tokio::spawn(hear_nothing(listener)),
            false => tokio::spawn(pass_on(listener, self.to.clone())),
        };
        Ok(())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
        // Its folder goes with the test.
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn pass_on(listener: UnixListener, to: PathBuf) {
    let mut connections = JoinSet::new();
    while let Ok((mut host, _)) = listener.accept().await {
        let to = to.clone();
        connections.spawn(async move {
            if let Ok(mut guest) = UnixStream::connect(to).await {
                // Either side may hang up.
                let _ = copy_bidirectional(&mut host, &mut guest).await;
            }
        });
    }
}

async fn hear_nothing(listener: UnixListener) {
    let mut kept = Vec::new();
    while let Ok((host, _)) = listener.accept().await {
        kept.push(host);
    }
}

#[async_trait]
impl Driver for Cutting {
    fn kind(&self) -> DriverKind {
        self.driver.kind()
    }

    fn acceleration(&self) -> Acceleration {
        self.driver.acceleration()
    }

    fn keeps_connections(&self) -> bool {
        false
    }

    fn cpu(&self) -> String {
        self.driver.cpu()
    }

    fn checks_memory(&self) -> bool {
        self.driver.checks_memory()
    }

    fn identity(&self, machine: &Machine) -> Identity {
        self.driver.identity(machine)
    }

    async fn boot(
        &self,
        machine: &Machine,
        timeline: &mut Timeline,
    ) -> Result<Box<dyn MicroVm>, BootError> {
        let inner = self.driver.boot(machine, timeline).await?;
        Arc::clone(&self.relays).before(inner).await
    }

    async fn stand_by(
        &self,
        machine: &Machine,
        files: &SnapshotFiles,
        timeline: &mut Timeline,
    ) -> Result<Box<dyn StandBy>, BootError> {
        let inner = self.driver.stand_by(machine, files, timeline).await?;
        Ok(Box::new(Standing {
            inner,
            relays: Arc::clone(&self.relays),
        }))
    }
}

struct Standing {
    inner: Box<dyn StandBy>,
    relays: Arc<Relays>,
}

#[async_trait]
impl StandBy for Standing {
    fn pid(&self) -> u32 {
        self.inner.pid()
    }

    fn lives(&self) -> bool {
        self.inner.lives()
    }

    async fn restore(
        self: Box<Self>,
        timeline: &mut Timeline,
    ) -> Result<Box<dyn MicroVm>, BootError> {
        let inner = self.inner.restore(timeline).await?;
        self.relays.before(inner).await
    }

    async fn discard(self: Box<Self>) -> Result<(), ControlError> {
        self.inner.discard().await
    }
}

struct CutVm {
    inner: Box<dyn MicroVm>,
    relay: Relay,
    relays: Arc<Relays>,
}

#[async_trait]
impl MicroVm for CutVm {
    fn pid(&self) -> u32 {
        self.inner.pid()
    }

    fn cpu_time(&self) -> Option<Duration> {
        self.inner.cpu_time()
    }

    fn controls(&self) -> io::Result<Controls> {
        self.inner.controls()
    }

    fn vsock_path(&self) -> &Path {
        &self.relay.path
    }

    fn cgroups(&self) -> &Cgroups {
        self.inner.cgroups()
    }

    async fn pause(&mut self) -> Result<(), ControlError> {
        self.inner.pause().await
    }

    async fn resume(&mut self) -> Result<(), ControlError> {
        self.inner.resume().await
    }

    async fn snapshot(self: Box<Self>) -> Result<(), SnapshotError> {
        self.inner.snapshot().await
    }

    async fn save(&mut self, files: &SnapshotFiles) -> Result<Saved, SaveError> {
        let fate = *self.relays.lock();
        self.relay
            .cut(fate == Fate::Deaf)
            .map_err(SaveError::Files)?;
        match fate {
            Fate::Saved => self.inner.save(files).await,
            Fate::NotSaved | Fate::Deaf => Err(SaveError::Failed {
                reason: "it was told to fail".into(),
            }),
        }
    }

    fn snapshot_fault(&self) -> Option<Refusal> {
        self.inner.snapshot_fault()
    }

    async fn died(&mut self) -> Death {
        self.inner.died().await
    }

    async fn destroy(self: Box<Self>) -> Result<(), ControlError> {
        self.inner.destroy().await
    }
}
