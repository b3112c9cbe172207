//! The Firecracker driver.
//!
//! ```text
//!   jail ── firecracker ── API socket: machine, kernel, disk, vsock, entropy ── start
//!                       └─ API socket: load a snapshot's state, map its memory ── resume
//! ```
//!
//! Firecracker is started through its own jailer, if there is one and we are root, else through
//! our jail. Either way it finds every file under the path that it has outside; one that firelane-hostd starts
//! finds them where that puts them (`sight.rs`). It makes its sockets in one folder of the run directory. Source of all that is said to it: Firecracker, `docs` and
//! `src/firecracker/swagger/firecracker.yaml`, v1.16.1.

mod api;
mod boot;
mod disk;
mod exit;
mod launch;
mod microvm;
mod pager;
mod raw;
mod requests;
mod save;
mod sight;
mod version;

use std::path::{Path, PathBuf};
use std::str::FromStr;

use async_trait::async_trait;
use firelane_host_proto::message::Role;
use firelane_launch::firecracker::named;
use firelane_sys::userfault;

use crate::driver::{
    Acceleration, BootError, Driver, DriverKind, Identity, Machine, MicroVm, SnapshotFiles, StandBy,
};
use crate::host;
use crate::owned::hash;
use crate::timeline::Timeline;
use crate::trial::Trial;

pub use api::ApiError;
pub use firelane_launch::firecracker::default_program;
pub use pager::{LayoutError, PagerError};
use sight::Sight;
pub use version::{BadVersion, FindError, Version};

/// The jailer's usual name.
const JAILER: &str = "jailer";

/// Firecracker on this host.
#[derive(Clone, Debug)]
pub struct Firecracker {
    program: PathBuf,
    jailing: Jailing,
    jail_program: PathBuf,
    run_base: PathBuf,
    version: Version,
    format: Version,
    tsc_khz: u64,
    memory: MemoryFrom,
}

/// How a restored guest comes by its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryFrom {
    /// Its VMM maps the file: clones share what they only read, in the page cache. The file has to be checked as a
    /// whole before.
    File,
    /// It is handed out as it is missed, by userfaultfd, each range checked before. What clones of the snapshot touched
    /// first is handed out before it is missed. Nothing is shared.
    Userfault,
    /// From the file, once all of it is known to be what was sealed; until then by userfaultfd.
    Either,
}

impl MemoryFrom {
    /// Whether this is how a snapshot is restored whose memory is, or is not, still to be checked.
    fn pages(self, is_checked: bool) -> bool {
        match self {
            MemoryFrom::File => false,
            MemoryFrom::Userfault => true,
            MemoryFrom::Either => is_checked,
        }
    }
}

/// What is no way to come by memory.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a guest's memory does not come from {0:?}: say 'file', 'userfault' or 'either'")]
pub struct BadMemoryFrom(String);

impl FromStr for MemoryFrom {
    type Err = BadMemoryFrom;

    fn from_str(text: &str) -> Result<MemoryFrom, BadMemoryFrom> {
        match text {
            "file" => Ok(MemoryFrom::File),
            "userfault" => Ok(MemoryFrom::Userfault),
            "either" => Ok(MemoryFrom::Either),
            _ => Err(BadMemoryFrom(text.chars().take(40).collect())),
        }
    }
}

/// How a Firecracker is confined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Jailing {
    /// By its own jailer; only root can.
    Jailer(PathBuf),
    /// By our jail.
    Ours,
    /// By the firelane-hostd that listens there, in a jail like ours.
    Hostd(PathBuf),
    /// Not at all: to measure what a jail costs, and for stand-ins.
    None,
}

/// Where Firecracker is looked for, and what starts it.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its program.
    pub program: PathBuf,
    /// How it is confined.
    pub jailing: Jailing,
    /// Program that enters the jail when its first argument is [`firelane_sys::jail::ARGUMENT`].
    pub jail_program: PathBuf,
    /// Folder of the run directories.
    pub run_base: PathBuf,
}

/// Its jailer: `$FIRELANE_JAILER`, else the one on `PATH`, if there is one and we are root: nobody
/// else can use it.
#[must_use]
pub fn default_jailer() -> Option<PathBuf> {
    let root = rustix::process::geteuid().is_root();
    named("FIRELANE_JAILER", JAILER).filter(|_| root)
}

impl Firecracker {
    /// Asks the programs which versions they are.
    ///
    /// # Errors
    /// [`FindError`]; older ones than [`Version::BOOT_FLOOR`] are refused, and so is a jailer of
    /// another version.
    pub async fn find(place: Place) -> Result<Firecracker, FindError> {
        let Place {
            program,
            jailing,
            jail_program,
            run_base,
        } = place;
        let version = version::of(&program).await?;
        if version < Version::BOOT_FLOOR {
            let found = version;
            return Err(FindError::TooOld { program, found });
        }
        if let Jailing::Jailer(jailer) = &jailing {
            let found = version::of(jailer).await?;
            if found != version {
                return Err(FindError::OtherJailer {
                    jailer: jailer.clone(),
                    found,
                    expected: version,
                });
            }
        }
        let format = version::snapshot_format(&program).await?;
        let pages = match jailing {
            // Who makes the VMM's own device may open it, whoever we are.
            Jailing::Hostd(_) => Path::new("/dev/userfaultfd").exists(),
            _ => userfault::is_there(),
        };
        Ok(Firecracker {
            program,
            jailing,
            jail_program,
            run_base,
            version,
            format,
            tsc_khz: 0,
            memory: match pages {
                true => MemoryFrom::Either,
                false => MemoryFrom::File,
            },
        })
    }

    /// Which version it is.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// Whether guests really run by it on this host; see [`Trial::find`].
    pub async fn try_out(&self, machine: &Machine, cache: &Path, fresh: bool) -> Trial {
        let jailer = match &self.jailing {
            Jailing::Jailer(jailer) => host::stamp(jailer),
            Jailing::Ours => "our jail".into(),
            Jailing::Hostd(_) => "no jailer".into(),
            Jailing::None => "no jail".into(),
        };
        let programs = format!("firecracker {} {jailer}", host::stamp(&self.program));
        let driver = |tsc_khz| self.with_tsc(tsc_khz);
        let hosted = self.is_hosted();
        Trial::find(&programs, hosted, machine, cache, fresh, driver).await
    }

    /// The same on a host whose time-stamp counter has this rate, in kHz.
    #[must_use]
    pub fn with_tsc(&self, tsc_khz: u64) -> Firecracker {
        Firecracker {
            tsc_khz,
            ..self.clone()
        }
    }

    /// The same with VMMs that are confined in this way.
    #[must_use]
    pub fn with_jailing(&self, jailing: Jailing) -> Firecracker {
        Firecracker {
            jailing,
            ..self.clone()
        }
    }

    /// The same with guests that come by their memory in this way.
    #[must_use]
    pub fn with_memory(&self, memory: MemoryFrom) -> Firecracker {
        Firecracker {
            memory,
            ..self.clone()
        }
    }

    /// Its program.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// How it is confined.
    #[must_use]
    pub fn jailing(&self) -> &Jailing {
        &self.jailing
    }

    /// Whether firelane-hostd starts it.
    #[must_use]
    pub fn is_hosted(&self) -> bool {
        matches!(self.jailing, Jailing::Hostd(_))
    }

    fn sight(&self) -> Sight {
        match self.jailing {
            Jailing::Hostd(_) => Sight::Hosted,
            Jailing::Ours | Jailing::Jailer(_) | Jailing::None => Sight::AsOutside,
        }
    }
}

/// Its jailer is given no namespace with a tap in it.
fn refuse_network(machine: &Machine) -> Result<(), BootError> {
    match machine.network {
        Some(_) => Err(BootError::NoNetwork {
            driver: "firecracker",
        }),
        None => Ok(()),
    }
}

#[async_trait]
impl Driver for Firecracker {
    fn kind(&self) -> DriverKind {
        DriverKind::Firecracker
    }

    fn acceleration(&self) -> Acceleration {
        Acceleration::Kvm
    }

    /// A snapshot resets the vsock device. Source: Firecracker, `docs/snapshotting/snapshot-support.md`,
    /// "Vsock device reset" (v1.16.1).
    fn keeps_connections(&self) -> bool {
        false
    }

    fn checks_memory(&self) -> bool {
        self.memory != MemoryFrom::File
    }

    fn identity(&self, machine: &Machine) -> Identity {
        let (kind, version, format) = (self.kind().name(), self.version, self.format);
        let (program, processor) = (host::stamp(&self.program), host::processor());
        let kernel = host::kernel_family();
        let (kernel_arguments, rootfs) = (boot::kernel_arguments(machine), &machine.rootfs);
        let mut arguments = format!("{kernel_arguments} {rootfs:?} {:?}", machine.disk);
        if let (Sight::Hosted, Some(rootfs)) = (self.sight(), rootfs) {
            // A snapshot's disk is looked for where the guest had it.
            arguments += &self.sight().of(Role::Rootfs, rootfs).to_string_lossy();
        }
        let arguments = hash(&arguments);
        Identity {
            vmm: format!(
                "{kind} {version} format {format} {program} {arguments:016x} {kernel} {processor}"
            ),
            tsc_khz: self.tsc_khz,
        }
    }

    async fn boot(
        &self,
        machine: &Machine,
        timeline: &mut Timeline,
    ) -> Result<Box<dyn MicroVm>, BootError> {
        refuse_network(machine)?;
        let vm = boot::boot(self, machine, timeline).await?;
        Ok(Box::new(vm))
    }

    async fn stand_by(
        &self,
        machine: &Machine,
        files: &SnapshotFiles,
        timeline: &mut Timeline,
    ) -> Result<Box<dyn StandBy>, BootError> {
        refuse_network(machine)?;
        let standing = boot::Standing::launch(self, machine, files, timeline).await?;
        Ok(Box::new(standing))
    }
}
