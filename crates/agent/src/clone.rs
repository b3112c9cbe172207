//! Clones: private copies of a snapshot, each with entropy, time and names of its own.

use std::time::{SystemTime, UNIX_EPOCH};

use firelane_guest_proto::SESSION_PORT;
use firelane_guest_proto::message::{RenewSpec, SEED_BYTES, ThawSpec};
use firelane_vmm::connect::{ConnectError, connect};
use firelane_vmm::driver::{BootError, Driver, Machine, MicroVm, SnapshotFiles};
use firelane_vmm::session::{Session, SessionError};
use firelane_vmm::timeline::{Phase, Timeline};
use rustix::rand::{GetRandomFlags, getrandom};
use tokio::time::Instant;

use crate::network::{self, GuestNetwork, OpenError, Reach};
use crate::snapshot::CONNECT_TIMEOUT;
use crate::workshop::PrepareError;

/// Why there is no clone. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum CloneError {
    /// The files changed since they were verified, and there are no others.
    #[error("the template's files have changed, and it cannot be used as it is now")]
    Changed(#[source] Box<PrepareError>),
    /// The template was built again since it was asked for.
    #[error("the template was built again meanwhile")]
    Replaced,
    /// The snapshot could not be restored.
    #[error("cannot restore the snapshot")]
    Restore(#[from] BootError),
    /// The clone was not reached.
    #[error("cannot reach the clone")]
    Connect(#[from] ConnectError),
    /// The clone did not confirm that it is renewed, so it was not used.
    #[error("the clone did not take an identity of its own")]
    Renew(#[from] SessionError),
    /// It gets no network, so it was not started.
    #[error(transparent)]
    Network(#[from] OpenError),
    /// This host has no random numbers.
    #[error("cannot get random numbers for the clone")]
    Random(#[source] std::io::Error),
}

impl CloneError {
    /// Whether the VMM did not take the snapshot, so that another one is the remedy.
    #[must_use]
    pub fn blames_snapshot(&self) -> bool {
        matches!(
            self,
            CloneError::Restore(BootError::Load(_) | BootError::Died(_))
        )
    }

    /// What the user can do about it, where that is known.
    #[must_use]
    pub fn remedy(&self) -> Option<String> {
        match self {
            CloneError::Network(error) => error.remedy().map(String::from),
            _ => None,
        }
    }
}

/// A clone that may be used, and the session in which it was renewed.
pub struct Ready {
    /// The microVM.
    pub vm: Box<dyn MicroVm>,
    /// An open session with it.
    pub session: Session,
    /// What it is called inside.
    pub names: Names,
    /// Its network, if its template gives it one. It is closed once the microVM is gone.
    pub network: Option<GuestNetwork>,
}

/// What a clone is called inside: no other has the same.
#[derive(Clone, Debug)]
pub struct Names {
    hostname: String,
    machine_id: [u8; 16],
}

impl Names {
    /// Names for the microVM with this id.
    ///
    /// # Errors
    /// [`CloneError::Random`].
    pub fn of(id: &str) -> Result<Names, CloneError> {
        // The end of an id differs most.
        let end = id.get(id.len().saturating_sub(12)..).unwrap_or(id);
        Ok(Names {
            hostname: format!("firelane-{end}"),
            machine_id: random()?,
        })
    }
}

/// Restores a snapshot, and gives the clone what makes it different from all others. A clone that
/// does not confirm this is destroyed. It gets a network of its own, if it may reach something.
///
/// # Errors
/// [`CloneError`].
pub async fn restore(
    driver: &dyn Driver,
    machine: &Machine,
    reach: Option<&Reach>,
    files: &SnapshotFiles,
    timeline: &mut Timeline,
) -> Result<Ready, CloneError> {
    let (network, machine) = connected(machine, reach).await?;
    match driver.restore(&machine, files, timeline).await {
        Ok(vm) => take_up(vm, network, &machine.id, files, timeline).await,
        Err(error) => {
            network::close(network).await;
            Err(error.into())
        }
    }
}

/// The machine with its device on a network of its own, if it may reach something. One that has a device and
/// may reach nothing keeps it unconnected.
///
/// # Errors
/// [`OpenError`].
pub async fn connected(
    machine: &Machine,
    reach: Option<&Reach>,
) -> Result<(Option<GuestNetwork>, Machine), OpenError> {
    let mut machine = machine.clone();
    let Some(reach) = reach else {
        return Ok((None, machine));
    };
    let network = reach.open().await?;
    machine.network = Some(network.device()?);
    Ok((Some(network), machine))
}

/// Gives a clone that was just restored what makes it different from all others. One that does not confirm
/// this is destroyed.
///
/// # Errors
/// [`CloneError`].
pub async fn take_up(
    vm: Box<dyn MicroVm>,
    network: Option<GuestNetwork>,
    id: &str,
    files: &SnapshotFiles,
    timeline: &mut Timeline,
) -> Result<Ready, CloneError> {
    match first_contact(&*vm, id, timeline).await {
        Ok((session, names)) => {
            check_rest(files);
            Ok(Ready {
                vm,
                session,
                names,
                network,
            })
        }
        Err(error) => {
            // It was ended for that, and everything else follows from it.
            let error = match vm.snapshot_fault() {
                Some(fault) => CloneError::Restore(BootError::Load(fault)),
                None => error,
            };
            if let Err(left) = vm.destroy().await {
                tracing::warn!(error = %left, "left to the next sweep");
            }
            network::close(network).await;
            Err(error)
        }
    }
}

/// Has the rest of a memory checked that is handed out range by range: the next clone can map it then. Nobody waits for
/// that.
fn check_rest(files: &SnapshotFiles) {
    let Some(checked) = files.checked.clone() else {
        return;
    };
    let finish = move || {
        if let Err(reason) = checked.finish() {
            tracing::warn!(%reason, "a snapshot's memory does not verify, and is not used again");
        }
    };
    let thread = std::thread::Builder::new().name("verify".into());
    if let Err(error) = thread.spawn(finish) {
        tracing::warn!(%error, "cannot verify the rest of a snapshot's memory");
    }
}

async fn first_contact(
    vm: &dyn MicroVm,
    id: &str,
    timeline: &mut Timeline,
) -> Result<(Session, Names), CloneError> {
    let deadline = Instant::now() + CONNECT_TIMEOUT;
    let stream = connect(vm.vsock_path(), SESSION_PORT, deadline).await?;
    let session = Session::open(stream).await?;
    timeline.mark(Phase::Connected);
    let names = Names::of(id)?;
    renew(&session, &names).await?;
    timeline.mark(Phase::Renewed);
    Ok((session, names))
}

/// Gives a microVM the present time, these names, and random numbers that no other has.
pub(crate) async fn renew(session: &Session, names: &Names) -> Result<(), CloneError> {
    let spec = RenewSpec {
        seed: random::<SEED_BYTES>()?.into(),
        realtime_ns: realtime_ns(),
        hostname: names.hostname.clone(),
        machine_id: names.machine_id,
    };
    Ok(session.renew(&spec).await?)
}

/// Lets a frozen microVM go on, with the present time and fresh random numbers.
pub(crate) async fn thaw(session: &Session) -> Result<(), CloneError> {
    let spec = ThawSpec {
        seed: random::<SEED_BYTES>()?.into(),
        realtime_ns: realtime_ns(),
    };
    Ok(session.thaw(&spec).await?)
}

fn realtime_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let realtime_ns = since.map_or(0, |since| since.as_nanos());
    u64::try_from(realtime_ns).unwrap_or(u64::MAX)
}

fn random<const N: usize>() -> Result<[u8; N], CloneError> {
    let mut bytes = [0; N];
    // Up to 256 bytes come at once, or not at all: getrandom(2).
    getrandom(&mut bytes, GetRandomFlags::empty())
        .map_err(|errno| CloneError::Random(errno.into()))?;
    Ok(bytes)
}
