//! The QEMU driver.
//!
//! QEMU is started through the jail, with its monitor, the guest's console and the link as
//! inherited sockets: nothing of it can be reached by path except the ports' socket, which is ours.

mod bare;
mod boot;
mod link;
mod microvm;
mod migration;
mod probe;
mod qmp;
mod save;
mod stuck;

use std::path::PathBuf;

use async_trait::async_trait;
use firelane_launch::machine::Network;
use firelane_launch::qemu::{Origin, arguments};

use crate::driver::{
    Acceleration, BootError, Driver, DriverKind, Identity, Machine, MicroVm, SnapshotFiles, StandBy,
};
use boot::Standing;

use crate::host;
use crate::owned;
use crate::timeline::Timeline;

pub use bare::BareError;
pub use firelane_launch::qemu::default_program;
pub use probe::{ProbeError, find_program, version};
pub use qmp::QmpError;

/// How QEMU is found and started on this host.
#[derive(Clone, Debug)]
pub struct Qemu {
    /// Its program.
    pub program: PathBuf,
    /// Program that enters the jail when its first argument is [`firelane_sys::jail::ARGUMENT`].
    pub jail_program: PathBuf,
    /// Folder of the run directories.
    pub run_base: PathBuf,
    /// What executes the guests' instructions.
    pub acceleration: Acceleration,
    /// Rate of the host's time-stamp counter in kHz.
    pub tsc_khz: u64,
    /// The socket of the firelane-hostd that starts it, if that is not done here.
    pub hostd: Option<PathBuf>,
}

#[async_trait]
impl Driver for Qemu {
    fn kind(&self) -> DriverKind {
        DriverKind::Qemu
    }

    fn acceleration(&self) -> Acceleration {
        self.acceleration
    }

    /// hostd starts VMMs for those who may not make a tap.
    fn gives_networks(&self) -> bool {
        self.hostd.is_none()
    }

    fn identity(&self, machine: &Machine) -> Identity {
        let processor = match self.acceleration {
            Acceleration::Kvm => host::processor(),
            // The emulated one is a part of the program.
            Acceleration::Tcg => String::new(),
        };
        let (kind, program) = (self.kind().name(), host::stamp(&self.program));
        // The devices are in the arguments; the name and the rate of the counter differ each time.
        let nobody = Machine {
            id: String::new(),
            ..machine.clone()
        };
        let origin = Origin::Template;
        let arguments = arguments(
            &nobody.shape(),
            &nobody.files(),
            origin,
            self.acceleration,
            0,
            nobody.network.map(|_| Network::Nothing),
        );
        let arguments = owned::hash(&arguments.join(" "));
        let acceleration = self.acceleration;
        Identity {
            vmm: format!("{kind} {program} {arguments:016x} {acceleration} {processor}"),
            tsc_khz: self.tsc_khz,
        }
    }

    async fn boot(
        &self,
        machine: &Machine,
        timeline: &mut Timeline,
    ) -> Result<Box<dyn MicroVm>, BootError> {
        let standing = Standing::launch(self, machine, None, timeline).await?;
        Ok(Box::new(standing.start(timeline).await?))
    }

    async fn stand_by(
        &self,
        machine: &Machine,
        files: &SnapshotFiles,
        timeline: &mut Timeline,
    ) -> Result<Box<dyn StandBy>, BootError> {
        let standing = Standing::launch(self, machine, Some(files), timeline).await?;
        Ok(Box::new(standing))
    }
}
