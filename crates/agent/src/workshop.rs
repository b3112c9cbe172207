//! Everything that clones are made with: driver, store, and what was prepared of each template.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use firelane_image::signing::Verified;
use firelane_image::{Definition, Options, Snapshot, Store, StoreError, Template};
use firelane_network::policy::PolicyError;
use firelane_vmm::driver::{DiskLimits, Driver, Machine, MicroVm, NetworkDevice};
use firelane_vmm::timeline::Timeline;
use jiff::Timestamp;
use tokio::task::JoinError;
use uuid::Uuid;

use crate::building::{Building, BuildingError, Logged};
use crate::clone::{self, CloneError, Ready};
use crate::network::{self, GuestNetwork, Reach};
use crate::snapshot::{self, MakeError};
use crate::standing::{Stand, Standing};

/// How long a guest may take to boot.
pub const BOOT_TIMEOUT: Duration = Duration::from_secs(120);

/// Guest memory that a program cannot have: the kernel's and the guest-runner's, in MiB.
const GUEST_OVERHEAD_MIB: u32 = 72;
/// Least memory of a program, in MiB.
const LEAST_PROGRAM_MIB: u32 = 24;

/// Makes clones of templates.
pub struct Workshop {
    driver: Arc<dyn Driver>,
    store: Store,
    guest_runner: PathBuf,
    prepared: Mutex<HashMap<String, Arc<Prepared>>>,
    standing: Standing,
}

/// A template that clones can be made of at once.
pub struct Prepared {
    /// The template.
    pub template: Verified<Template>,
    /// The machine that its snapshot is of, without a name.
    pub machine: Machine,
    /// The snapshot.
    pub snapshot: Verified<Snapshot>,
    /// What its clones may reach, if anything.
    pub reach: Option<Reach>,
}

impl Prepared {
    /// The template's name.
    pub(crate) fn name(&self) -> &str {
        &self.template.manifest().name
    }

    /// Whether all that it is made of is still what was verified: a few microseconds, before each use.
    fn is_unchanged(&self) -> bool {
        let now = Timestamp::now();
        let snapshot = &self.snapshot;
        self.template.is_unchanged(now) && snapshot.is_unchanged(now) && !snapshot.is_spoilt()
    }
}

/// Why clones of a template cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The template is not there, or cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It has a network, which the driver cannot give.
    #[error("template {name:?} has a network, which {driver} gives no guest here")]
    NoNetworks {
        /// The template.
        name: String,
        /// The driver.
        driver: &'static str,
    },
    /// Its `[network]` cannot be understood.
    #[error("the template's network cannot be understood")]
    Policy(#[from] PolicyError),
    /// It has no snapshot.
    #[error(transparent)]
    Make(#[from] MakeError),
    /// It does not verify, and could not be built again.
    #[error("the template is refused, and cannot be built again")]
    Rebuild(#[from] BuildingError),
    /// A task of ours failed.
    #[error("waiting for the store failed")]
    Task(#[from] JoinError),
}

impl Workshop {
    /// One with this driver, these templates and this guest-runner.
    #[must_use]
    pub fn new(driver: Arc<dyn Driver>, store: Store, guest_runner: PathBuf) -> Workshop {
        Workshop {
            standing: Standing::new(Arc::clone(&driver), 0),
            driver,
            store,
            guest_runner,
            prepared: Mutex::default(),
        }
    }

    /// Has up to `most` VMMs of each template that is in use wait for its next restores.
    #[must_use]
    pub fn standing_by(mut self, most: u32) -> Workshop {
        self.standing = Standing::new(Arc::clone(&self.driver), most);
        self
    }

    /// Ends the VMMs that wait. Afterwards none waits any more.
    pub async fn close(&self) {
        self.standing.close().await;
    }

    /// The VMMs that wait.
    pub(crate) fn standing(&self) -> &Standing {
        &self.standing
    }

    /// What runs the clones.
    #[must_use]
    pub fn driver(&self) -> &dyn Driver {
        &*self.driver
    }

    /// The templates.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// A template that is built, with its snapshot, which is made if there is none. Several that ask
    /// for the same one at once wait for one making: the store's lock sees to it. A built-in template
    /// that does not verify is built again first.
    ///
    /// # Errors
    /// [`PrepareError`].
    pub async fn prepare(&self, name: &str) -> Result<Arc<Prepared>, PrepareError> {
        let refused = match self.prepare_as_it_is(name).await {
            Err(PrepareError::Store(refused @ StoreError::Refused { .. })) => refused,
            prepared => return prepared,
        };
        // Nobody but whoever built another one has its definition.
        let Ok(definition) = Definition::builtin(name) else {
            return Err(refused.into());
        };
        let template = name.to_owned();
        let (store, options) = (self.store.clone(), Options::default());
        Building::start(store, definition, options, Arc::new(Logged { template }))
            .map_err(BuildingError::from)?
            .end()
            .await?;
        self.prepare_as_it_is(name).await
    }

    async fn prepare_as_it_is(&self, name: &str) -> Result<Arc<Prepared>, PrepareError> {
        let (store, wanted) = (self.store.clone(), name.to_owned());
        let template = tokio::task::spawn_blocking(move || store.get(&wanted)).await??;
        if template.manifest().network.is_some() && !self.driver.gives_networks() {
            return Err(PrepareError::NoNetworks {
                name: name.into(),
                driver: self.driver.kind().name(),
            });
        }
        if let Some(prepared) = self.lock().get(name)
            && prepared.template.manifest().id == template.manifest().id
            && prepared.is_unchanged()
        {
            return Ok(Arc::clone(prepared));
        }
        let runner = self.guest_runner.clone();
        let made = tokio::task::spawn_blocking(move || machine(&template, &runner));
        let (template, machine) = made.await??;
        let named = Machine {
            id: new_id(),
            ..machine.clone()
        };
        let made = snapshot::find_or_make(&*self.driver, &self.store, &template, &named, || {});
        let reach = template.manifest().network.as_ref().map(Reach::new);
        let prepared = Arc::new(Prepared {
            reach: reach.transpose()?,
            snapshot: made.await?,
            machine,
            template,
        });
        self.lock().insert(name.to_owned(), Arc::clone(&prepared));
        Ok(prepared)
    }

    /// A clone that may be used, known inside as `id`. On the host it is that too, unless it goes on in a
    /// VMM that has waited, which has a name already.
    ///
    /// # Errors
    /// [`CloneError`]; if it blames the snapshot, that is gone, and the next clone has another.
    pub async fn restore(
        &self,
        prepared: &Arc<Prepared>,
        id: &str,
        timeline: &mut Timeline,
    ) -> Result<Ready, CloneError> {
        let renewed;
        let prepared = if prepared.is_unchanged() {
            prepared
        } else {
            renewed = self.prepare_again(prepared).await?;
            &renewed
        };
        let machine = Machine {
            id: id.to_owned(),
            ..prepared.machine.clone()
        };
        let files = snapshot::files(&prepared.snapshot);
        let restored = match self.restore_standing(prepared, timeline).await {
            Some((vm, network)) => clone::take_up(vm, network, id, &files, timeline).await,
            None => {
                let (driver, reach) = (&*self.driver, prepared.reach.as_ref());
                clone::restore(driver, &machine, reach, &files, timeline).await
            }
        };
        match &restored {
            Err(error) if error.blames_snapshot() => self.discard(prepared, &machine),
            // Only now: the processors were this clone's.
            _ => self.standing.refill(prepared),
        }
        restored
    }

    /// A clone in a VMM that has waited. One that fails is no loss: the restore that follows tells why.
    async fn restore_standing(
        &self,
        prepared: &Arc<Prepared>,
        timeline: &mut Timeline,
    ) -> Option<(Box<dyn MicroVm>, Option<GuestNetwork>)> {
        let Stand { vmm, network } = self.standing.take(prepared)?;
        match vmm.restore(timeline).await {
            Ok(vm) => Some((vm, network)),
            Err(error) => {
                network::close(network).await;
                tracing::warn!(%error, "a VMM that waited did not restore");
                *timeline = Timeline::start();
                None
            }
        }
    }

    fn discard(&self, prepared: &Prepared, machine: &Machine) {
        let origin = snapshot::origin(&*self.driver, &prepared.template, machine);
        if let Err(error) = self.store.discard_snapshot(&origin) {
            tracing::warn!(%error, "cannot discard a snapshot that cannot be loaded");
        }
        self.lock().remove(&prepared.template.manifest().name);
    }

    /// Verifies again what has changed; a snapshot that is refused is made again.
    async fn prepare_again(&self, old: &Prepared) -> Result<Arc<Prepared>, CloneError> {
        let manifest = old.template.manifest();
        let prepared = self.prepare(&manifest.name).await;
        let prepared = prepared.map_err(|error| CloneError::Changed(Box::new(error)))?;
        // The caller's environment and limits are those of the old one.
        if prepared.template.manifest().id != manifest.id {
            return Err(CloneError::Replaced);
        }
        Ok(prepared)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Prepared>>> {
        self.prepared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Verifies a template. Its machine, without a name.
fn machine(
    template: &Template,
    guest_runner: &Path,
) -> Result<(Verified<Template>, Machine), StoreError> {
    let mut template = template.verified()?;
    let machine = Machine {
        id: String::new(),
        kernel: template.vmlinux(),
        initrd: Some(template.initrd(guest_runner)?),
        rootfs: Some(template.rootfs()),
        memory_mib: template.manifest().memory_mib,
        vcpus: 1,
        boot_timeout: BOOT_TIMEOUT,
        snapshot: None,
        // Each clone's is connected when it is made.
        network: template
            .manifest()
            .network
            .is_some()
            .then(NetworkDevice::unconnected),
        disk: DiskLimits::DEFAULT,
    };
    Ok((template, machine))
}

/// The bound on a program's memory that makes up for a clone with more memory than was asked for, in
/// bytes; 0 if there is none.
#[must_use]
pub fn program_memory_bytes(machine: &Machine, wanted_mib: Option<u32>) -> u64 {
    match wanted_mib {
        Some(wanted) if wanted < machine.memory_mib => {
            let program = wanted.saturating_sub(GUEST_OVERHEAD_MIB);
            u64::from(program.max(LEAST_PROGRAM_MIB)) << 20
        }
        _ => 0,
    }
}

/// A name that no other microVM has.
#[must_use]
pub fn new_id() -> String {
    Uuid::now_v7().simple().to_string()
}
