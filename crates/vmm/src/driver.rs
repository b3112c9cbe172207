//! What every kind of VMM can do.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use firelane_launch::machine::{Files, Shape};
use firelane_sys::jail::Controls;

use crate::memory::CheckedMemory;
use crate::timeline::Timeline;

pub use firelane_launch::machine::{Acceleration, DiskLimits};

/// What a VMM answered to a command that it did not carry out, or what kept it from answering: an
/// error of its driver.
pub type Refusal = Box<dyn std::error::Error + Send + Sync>;

/// A kind of VMM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriverKind {
    /// QEMU.
    Qemu,
    /// Firecracker.
    Firecracker,
}

impl DriverKind {
    /// The name used on the command line and in output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            DriverKind::Qemu => "qemu",
            DriverKind::Firecracker => "firecracker",
        }
    }
}

/// What to boot.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Name of the microVM, unique on the host: letters, digits and hyphens, 64 at most.
    pub id: String,
    /// The kernel as an ELF file.
    pub kernel: PathBuf,
    /// The initrd with the guest-runner in it; a guest that needs none has none.
    pub initrd: Option<PathBuf>,
    /// The root file system image, shared and read-only; a guest that needs none has none.
    pub rootfs: Option<PathBuf>,
    /// Guest memory in MiB.
    pub memory_mib: u32,
    /// Virtual processors.
    pub vcpus: u32,
    /// How long the guest may take until it is ready.
    pub boot_timeout: Duration,
    /// Where a snapshot of it shall be put by [`MicroVm::snapshot`], if one shall be made: files
    /// that do not exist yet.
    pub snapshot: Option<SnapshotFiles>,
    /// The network device; without one the guest has the loopback device only. What a snapshot is made of has
    /// nothing behind its device, whatever is said here: a guest that warms reaches nobody.
    pub network: Option<NetworkDevice>,
    /// How much of its root file system image it may read. A snapshot keeps the bounds of the guest that it was made of,
    /// and is of use to guests with the same ones only. A QEMU that firelane-hostd starts has [`DiskLimits::DEFAULT`],
    /// whatever is said here.
    pub disk: DiskLimits,
}

/// A guest's network device, which has the Ethernet address of [`firelane_guest_proto::network`]. Behind it is
/// nothing, or a tap without a header of the kernel's: who made that sees to what passes it.
#[derive(Clone, Debug)]
pub struct NetworkDevice(Option<Arc<OwnedFd>>);

impl NetworkDevice {
    /// One with nothing behind it: what the guest sends is gone.
    #[must_use]
    pub fn unconnected() -> Self {
        Self(None)
    }

    /// One on the tap behind this descriptor.
    #[must_use]
    pub fn on(tap: OwnedFd) -> Self {
        Self(Some(Arc::new(tap)))
    }

    /// A descriptor of its tap for a VMM, if there is one.
    pub(crate) fn tap(&self) -> io::Result<Option<OwnedFd>> {
        self.0.as_ref().map(|tap| tap.try_clone()).transpose()
    }
}

impl Machine {
    /// Its name and size.
    pub(crate) fn shape(&self) -> Shape {
        Shape {
            id: self.id.clone(),
            memory_mib: self.memory_mib,
            vcpus: self.vcpus,
        }
    }

    /// Its files, which a VMM that we start finds under the paths that they have here.
    pub(crate) fn files(&self) -> Files {
        Files {
            kernel: self.kernel.clone(),
            initrd: self.initrd.clone(),
            rootfs: self.rootfs.clone(),
            disk: self.disk,
        }
    }
}

/// The two files of a snapshot. Once made, neither is ever written again.
#[derive(Clone, Debug)]
pub struct SnapshotFiles {
    /// The guest's memory, as large as that and sparse. Clones map it privately.
    pub memory: PathBuf,
    /// Everything else of the microVM's state, in the driver's own format.
    pub state: PathBuf,
    /// The memory's content, if it has to be checked as it is handed out: then no VMM may map the file. Else the
    /// file is as good as whoever names it says.
    pub checked: Option<Arc<dyn CheckedMemory>>,
}

impl SnapshotFiles {
    /// Files whose content need not be checked any more.
    #[must_use]
    pub fn new(memory: PathBuf, state: PathBuf) -> SnapshotFiles {
        SnapshotFiles {
            memory,
            state,
            checked: None,
        }
    }

    /// Refuses to map memory that is to be checked as it is handed out.
    pub(crate) fn mappable(&self) -> Result<(), BootError> {
        match self.checked {
            None => Ok(()),
            Some(_) => Err(BootError::Step {
                step: "map the snapshot's memory",
                source: io::Error::other("it is checked only while it is handed out"),
            }),
        }
    }

    /// Makes sure that the files survive a sudden end of the host. [`MicroVm::save`] does not: the
    /// microVMs that could use them would not survive it either. Whoever keeps them for longer does.
    ///
    /// # Errors
    /// If they cannot be flushed.
    pub fn flush(&self) -> io::Result<()> {
        [&self.memory, &self.state]
            .into_iter()
            .try_for_each(|path| std::fs::File::open(path)?.sync_all())
    }
}

/// Why a microVM could not be booted. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The VMM's program is not there.
    #[error("{program} is not installed")]
    NoVmm {
        /// Its name.
        program: String,
        /// How to get it.
        remedy: String,
    },
    /// A file of the machine cannot be read.
    #[error("cannot read {path}")]
    Unreadable {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The microVM's own files on the host could not be made.
    #[error("cannot prepare the run directory")]
    RunDir(#[from] crate::rundir::RunDirError),
    /// This driver gives no guest a network.
    #[error("{driver} gives its guests no network here")]
    NoNetwork {
        /// Its name.
        driver: &'static str,
    },
    /// A step of the start failed.
    #[error("cannot {step}")]
    Step {
        /// Which one.
        step: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The VMM ended before the guest was ready.
    #[error("the VMM ended before the guest was ready")]
    Died(#[source] Death),
    /// firelane-hostd did not start the VMM, or did not let it go on.
    #[error("firelane-hostd started no VMM")]
    Hostd(#[source] firelane_host_proto::CallError),
    /// The VMM runs without something that this host could confine it by.
    #[error("the VMM is not confined: {control} is off ({reason})")]
    Unconfined {
        /// What is missing.
        control: String,
        /// What the kernel says.
        reason: String,
    },
    /// The VMM refused a command.
    #[error("the VMM refused its configuration")]
    Monitor(#[source] Refusal),
    /// The VMM did not load the snapshot.
    #[error("the VMM could not load the snapshot")]
    Load(#[source] Refusal),
    /// The guest did not become ready in time.
    #[error(
        "the guest was not ready within {timeout:?}{}{}",
        shown("where it stands", stands),
        shown("console", console)
    )]
    NotReady {
        /// The time it had.
        timeout: Duration,
        /// Where its processors are, as far as the VMM tells; empty if it was not asked.
        stands: String,
        /// Last lines of its console.
        console: String,
    },
}

impl BootError {
    /// What the user can do about it, where that is known.
    #[must_use]
    pub fn remedy(&self) -> Option<String> {
        match self {
            BootError::NoVmm { remedy, .. } => Some(remedy.clone()),
            BootError::Hostd(error) => error.remedy(),
            BootError::NoNetwork { .. } => Some("as root: --driver qemu".into()),
            BootError::NotReady { .. } => {
                Some("the host may be overloaded: try again, or give --memory-mib more".into())
            }
            _ => None,
        }
    }
}

/// How a VMM that nobody ended came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Death {
    /// Exit code or signal.
    pub status: String,
    /// Last lines of its stderr.
    pub stderr: String,
    /// Last lines of the guest's console.
    pub console: String,
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (stderr, console) = (
            shown("stderr", &self.stderr),
            shown("console", &self.console),
        );
        write!(f, "it ended with {}{stderr}{console}", self.status)
    }
}

impl std::error::Error for Death {}

fn shown(name: &str, text: &str) -> String {
    if text.is_empty() {
        String::new()
    } else {
        format!("\n--- {name} ---\n{text}")
    }
}

/// A snapshot could not be made. Nothing of the microVM is left, nor of the snapshot's files.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The microVM was booted without a place for a snapshot.
    #[error("the microVM was booted without a place for a snapshot")]
    NoPlace,
    /// The VMM refused.
    #[error("the VMM could not save its state")]
    Refused(#[source] Refusal),
    /// The VMM began and did not succeed.
    #[error("the VMM could not save its state: {reason}")]
    Failed {
        /// What it says.
        reason: String,
    },
    /// The files could not be completed.
    #[error("cannot complete the snapshot's files")]
    Files(#[source] io::Error),
    /// What the microVM owned could not be removed.
    #[error(transparent)]
    Cleanup(#[from] ControlError),
}

/// What saving a microVM took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Saved {
    /// How long its processors stood still.
    pub stood: Duration,
}

/// A microVM could not be saved. It goes on as it was, unless pausing or resuming it is what
/// failed, and nothing of the snapshot's files is left.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// The VMM that writes the snapshot could not be started.
    #[error("cannot start the VMM that writes the snapshot")]
    Saver(#[source] BootError),
    /// The VMM that writes the snapshot ended before it was done.
    #[error("the VMM that writes the snapshot ended before it was done")]
    Died(#[source] Death),
    /// The guest did not read what was sent to it, so that it cannot be cut off from its host here.
    #[error("the guest did not read what was sent to it")]
    Unsettled,
    /// The microVM could not be paused or resumed.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A VMM refused.
    #[error("a VMM refused to pass on the microVM's memory and state")]
    Refused(#[source] Refusal),
    /// A VMM began and did not succeed.
    #[error("the microVM's memory and state could not be passed on: {reason}")]
    Failed {
        /// What it says.
        reason: String,
    },
    /// The file system is full.
    #[error("no space is left for {path}")]
    NoSpace {
        /// A file of the snapshot.
        path: PathBuf,
    },
    /// The files could not be completed.
    #[error("cannot complete the snapshot's files")]
    Files(#[source] io::Error),
}

/// A microVM could not be paused, resumed or destroyed.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The VMM refused.
    #[error("the VMM refused to {action}")]
    Refused {
        /// What was asked.
        action: &'static str,
        /// Its answer.
        #[source]
        source: Refusal,
    },
    /// What it owned could not be removed.
    #[error("cannot remove what the microVM owned")]
    Cleanup(#[source] io::Error),
}

/// What snapshots depend on beside the machine: they are restored only where it is the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The VMM's program and version, what executes instructions, and the processor guests see.
    pub vmm: String,
    /// Rate of the time-stamp counter in kHz; two measurements of one counter differ a little.
    pub tsc_khz: u64,
}

/// Drives one kind of VMM.
#[async_trait]
pub trait Driver: Send + Sync {
    /// Which kind.
    fn kind(&self) -> DriverKind;

    /// What executes the guests' instructions.
    fn acceleration(&self) -> Acceleration;

    /// Whether connections to a guest survive [`MicroVm::save`].
    fn keeps_connections(&self) -> bool {
        true
    }

    /// Whether its guests can have a network here.
    fn gives_networks(&self) -> bool {
        false
    }

    /// The processor that guests see.
    fn cpu(&self) -> String {
        match self.acceleration() {
            Acceleration::Kvm => crate::host::cpu_model(),
            Acceleration::Tcg => "emulated".to_owned(),
        }
    }

    /// Whether it hands guests their memory as they miss it, so that the memory file of a snapshot need not be
    /// checked as a whole before: see [`SnapshotFiles::checked`].
    fn checks_memory(&self) -> bool {
        false
    }

    /// What a snapshot of this machine can be restored with.
    fn identity(&self, machine: &Machine) -> Identity;

    /// Starts a microVM and waits until its guest-runner listens.
    ///
    /// # Errors
    /// [`BootError`]; nothing of the microVM is left then.
    async fn boot(
        &self,
        machine: &Machine,
        timeline: &mut Timeline,
    ) -> Result<Box<dyn MicroVm>, BootError>;

    /// Starts a VMM that waits for a snapshot, which was made by this driver of a machine of the same
    /// description. It holds the microVM's name, and little memory.
    ///
    /// # Errors
    /// [`BootError`]; nothing of the microVM is left then.
    async fn stand_by(
        &self,
        machine: &Machine,
        files: &SnapshotFiles,
        timeline: &mut Timeline,
    ) -> Result<Box<dyn StandBy>, BootError>;

    /// Starts a private clone of a snapshot, which was made by this driver of a machine of the same
    /// description, and waits until its guest-runner listens. The guest does not know yet that it
    /// is a clone: see `Renew` in `docs/protocol.md`.
    ///
    /// # Errors
    /// [`BootError`]; nothing of the microVM is left then.
    async fn restore(
        &self,
        machine: &Machine,
        files: &SnapshotFiles,
        timeline: &mut Timeline,
    ) -> Result<Box<dyn MicroVm>, BootError> {
        let standing = self.stand_by(machine, files, timeline).await?;
        standing.restore(timeline).await
    }
}

/// A VMM in its jail that answers and waits for a snapshot. Dropped, it is ended as a [`MicroVm`] is.
#[async_trait]
pub trait StandBy: Send + Sync {
    /// Its process.
    fn pid(&self) -> u32;

    /// Whether it still waits.
    fn lives(&self) -> bool;

    /// Restores the snapshot: see [`Driver::restore`].
    ///
    /// # Errors
    /// [`BootError`]; nothing of the microVM is left then.
    async fn restore(
        self: Box<Self>,
        timeline: &mut Timeline,
    ) -> Result<Box<dyn MicroVm>, BootError>;

    /// Ends it, and removes everything that it owned.
    ///
    /// # Errors
    /// [`ControlError::Cleanup`]; the next sweep tries again.
    async fn discard(self: Box<Self>) -> Result<(), ControlError>;
}

/// A microVM that runs. Dropped without [`MicroVm::destroy`], it is ended all the same, and what
/// is left of its files is removed by the next sweep.
#[async_trait]
pub trait MicroVm: Send + Sync {
    /// Its VMM's process.
    fn pid(&self) -> u32;

    /// Processor time that its VMM has used so far, if the host tells.
    fn cpu_time(&self) -> Option<Duration> {
        firelane_sys::process::cpu_time(self.pid()).ok()
    }

    /// What its VMM is confined by, as the kernel tells it.
    ///
    /// # Errors
    /// If the VMM is gone.
    fn controls(&self) -> io::Result<Controls> {
        Controls::of(self.pid())
    }

    /// The Unix socket through which its ports are reached; see [`crate::connect`].
    fn vsock_path(&self) -> &Path;

    /// The host's cgroups around the VMM.
    fn cgroups(&self) -> &firelane_sys::cgroup::Cgroups;

    /// Stops its processors, once its guest has read what was sent to it, or has had a few seconds to;
    /// a paused microVM stays so.
    ///
    /// # Errors
    /// [`ControlError::Refused`].
    async fn pause(&mut self) -> Result<(), ControlError>;

    /// Continues its processors; a running microVM stays so.
    ///
    /// # Errors
    /// [`ControlError::Refused`].
    async fn resume(&mut self) -> Result<(), ControlError>;

    /// Ends the microVM and leaves a snapshot of this moment in the files that its [`Machine`]
    /// named. No connection to the guest may be open.
    ///
    /// # Errors
    /// [`SnapshotError`].
    async fn snapshot(self: Box<Self>) -> Result<(), SnapshotError>;

    /// Leaves a snapshot of one moment in `files`, which do not exist yet, and goes on as it was,
    /// running or paused. Any number of clones can be restored from it, at once too, and each can be
    /// saved again. Only the owner may read the files: they hold what the guest holds. They are
    /// complete, but see [`SnapshotFiles::flush`].
    ///
    /// Connections to the guest may be open, and stay so if [`Driver::keeps_connections`]; else they are
    /// gone, and others are opened. In a clone they are gone. What runs in the
    /// guest goes on in each clone as soon as that starts, unless the guest is frozen: see `Freeze` in
    /// `docs/protocol.md`.
    ///
    /// Where connections are not kept they may be gone after a failure as well, and a Firecracker 1.16 that failed before it
    /// wrote anything may hear nothing any more (firecracker#6100): whoever cannot connect again ends the microVM.
    ///
    /// Dropped before its end, it leaves the microVM paused and half a snapshot behind.
    ///
    /// # Errors
    /// [`SaveError`].
    async fn save(&mut self, files: &SnapshotFiles) -> Result<Saved, SaveError>;

    /// What is wrong with the snapshot that it was restored from, if that was found out while it ran, and has ended
    /// it. [`MicroVm::died`] tells it as well.
    fn snapshot_fault(&self) -> Option<Refusal> {
        None
    }

    /// Waits until the VMM ends by itself.
    async fn died(&mut self) -> Death;

    /// Ends the VMM and removes everything that the microVM owned.
    ///
    /// # Errors
    /// [`ControlError::Cleanup`]; the next sweep tries again.
    async fn destroy(self: Box<Self>) -> Result<(), ControlError>;
}
