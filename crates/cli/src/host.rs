//! What this machine has for running guests: store, template, driver, guest-runner.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use firelane_agent::clone::{self, Ready};
use firelane_agent::network::{GuestNetwork, Reach};
use firelane_agent::snapshot;
use firelane_agent::workshop::{BOOT_TIMEOUT, Workshop, new_id, program_memory_bytes};
use firelane_guest_proto::{SESSION_PORT, Tier};
use firelane_image::signing::Verified;
use firelane_image::{Definition, Options, Store, StoreError, Template, build};
use firelane_vmm::connect::connect;
use firelane_vmm::driver::{DiskLimits, Driver, Machine, MicroVm, NetworkDevice, SnapshotFiles};
use firelane_vmm::qemu::{self, Qemu};
use firelane_vmm::rundir;
use firelane_vmm::session::Session;
use firelane_vmm::timeline::{Phase, Timeline};
use firelane_wire::run::Origin;
use tokio::time::Instant;

use crate::args::MachineArgs;
use crate::drivers::{self, Chosen, Tried};
use crate::failure::Failure;
use crate::progress::{BuildBar, Spinner};

/// How long a guest that listens may take to open a session.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// A guest that runs, and an open session with it.
pub(crate) struct Started {
    pub(crate) vm: Box<dyn MicroVm>,
    pub(crate) session: Session,
    /// Its network, if the template has one.
    pub(crate) network: Option<GuestNetwork>,
}

/// Everything that a microVM is started with.
pub(crate) struct Host {
    pub(crate) driver: Arc<dyn Driver>,
    /// The driver again, if it is QEMU.
    pub(crate) qemu: Option<Qemu>,
    /// What was tried before that driver was chosen.
    pub(crate) tried: Vec<Tried>,
    pub(crate) template: Verified<Template>,
    store: Store,
    guest_runner: PathBuf,
    /// What is booted.
    machine: Machine,
    /// What snapshots are made of; nothing, if a snapshot cannot serve what was asked for.
    warm_machine: Option<Machine>,
    /// What its programs may reach, if anything.
    reach: Option<Reach>,
}

impl Host {
    /// Finds or builds everything, and removes what killed runs left.
    pub(crate) async fn prepare(args: &MachineArgs) -> Result<Host, Failure> {
        Host::look(args, false).await
    }

    /// The same, but what is known of the host's KVM is found out again.
    pub(crate) async fn look_again(args: &MachineArgs) -> Result<Host, Failure> {
        Host::look(args, true).await
    }

    async fn look(args: &MachineArgs, fresh: bool) -> Result<Host, Failure> {
        drivers::look(args.driver)?;
        let store = open_store()?;
        let template = find_or_build(&store, &args.template).await?;
        Host::with(args, template, store, fresh).await
    }

    /// The same for a template that is at hand.
    pub(crate) async fn of_template(
        args: &MachineArgs,
        template: Template,
    ) -> Result<Host, Failure> {
        Host::with(args, template, open_store()?, false).await
    }

    async fn with(
        args: &MachineArgs,
        template: Template,
        store: Store,
        fresh: bool,
    ) -> Result<Host, Failure> {
        sweep();
        let runner = guest_runner()?;
        let tier = args.seccomp.unwrap_or(template.manifest().seccomp);
        let (template, initrd) = verify(template, runner.clone(), tier).await?;
        let manifest = template.manifest();
        let machine = Machine {
            id: String::new(),
            kernel: template.vmlinux(),
            initrd: Some(initrd),
            rootfs: Some(template.rootfs()),
            memory_mib: args.memory_mib.unwrap_or(manifest.memory_mib),
            vcpus: args.vcpus,
            boot_timeout: BOOT_TIMEOUT,
            snapshot: None,
            // Connected when a guest is started.
            network: manifest.network.is_some().then(NetworkDevice::unconnected),
            disk: DiskLimits::DEFAULT,
        };
        let reach = manifest.network.as_ref().map(Reach::new).transpose();
        let reach = reach.map_err(Failure::platform)?;
        let probed = Machine {
            id: new_id(),
            network: None,
            ..machine.clone()
        };
        let spinner = Spinner::start("looking at the host");
        let chosen = Chosen::find(args.driver, &probed, store.root(), fresh).await;
        drop(spinner);
        let Chosen {
            driver,
            qemu,
            tried,
        } = chosen?;
        let warm_machine = warm_machine(args, &machine, template.manifest().memory_mib);
        Ok(Host {
            driver,
            qemu,
            tried,
            template,
            store,
            guest_runner: runner,
            machine,
            warm_machine,
            reach,
        })
    }

    /// Starts a guest: a clone of the template's snapshot, which is made if there is none yet, or
    /// a fresh boot where a snapshot cannot serve.
    pub(crate) async fn start(
        &self,
        id: &str,
        timeline: &mut Timeline,
    ) -> Result<Started, Failure> {
        let Some(machine) = &self.warm_machine else {
            return self.boot(id, timeline).await;
        };
        let files = self.snapshot().await?;
        let machine = Machine {
            id: id.to_owned(),
            ..machine.clone()
        };
        // The run begins when there is a snapshot: making it is no part of it.
        *timeline = Timeline::start();
        let reach = self.reach.as_ref();
        match clone::restore(&*self.driver, &machine, reach, &files, timeline).await {
            Ok(Ready {
                vm,
                session,
                network,
                ..
            }) => Ok(Started {
                vm,
                session,
                network,
            }),
            Err(error) if error.blames_snapshot() => {
                let origin = snapshot::origin(&*self.driver, &self.template, &machine);
                self.store.discard_snapshot(&origin)?;
                let remedy = "the snapshot was discarded: try again, and another is made";
                Err(Failure::platform(error).with_remedy(remedy))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// A fresh boot, with a network if the template has one.
    async fn boot(&self, id: &str, timeline: &mut Timeline) -> Result<Started, Failure> {
        let (network, machine) = self.connected(&self.machine(id)).await?;
        let spinner = Spinner::start("booting");
        let vm = self.driver.boot(&machine, timeline).await?;
        drop(spinner);
        match open_session(&*vm).await {
            Ok(session) => {
                timeline.mark(Phase::Connected);
                Ok(Started {
                    vm,
                    session,
                    network,
                })
            }
            Err(failure) => {
                if let Err(error) = vm.destroy().await {
                    tracing::warn!(%error, "left to the next sweep");
                }
                Err(failure)
            }
        }
    }

    /// A machine with its device on a network of its own, if the template has one.
    pub(crate) async fn connected(
        &self,
        machine: &Machine,
    ) -> Result<(Option<GuestNetwork>, Machine), Failure> {
        Ok(clone::connected(machine, self.reach.as_ref()).await?)
    }

    /// The snapshot of the template's warmed guest, which is made if there is none.
    pub(crate) async fn snapshot(&self) -> Result<SnapshotFiles, Failure> {
        let machine = Machine {
            id: new_id(),
            ..self
                .warm_machine
                .clone()
                .unwrap_or_else(|| self.machine.clone())
        };
        let mut spinner = None;
        let making = || spinner = Some(Spinner::start("warming a guest, once for all runs"));
        let found =
            snapshot::find_or_make(&*self.driver, &self.store, &self.template, &machine, making);
        Ok(snapshot::files(&found.await?))
    }

    /// The bound on a program's memory that makes up for a clone with more memory than was asked
    /// for, in bytes; 0 if there is none.
    pub(crate) fn program_memory_bytes(&self) -> u64 {
        self.warm_machine.as_ref().map_or(0, |warm| {
            program_memory_bytes(warm, Some(self.machine.memory_mib))
        })
    }

    /// Where microVMs come from.
    pub(crate) fn origin(&self) -> Origin {
        match &self.warm_machine {
            Some(_) => Origin::Snapshot,
            None => Origin::Boot,
        }
    }

    /// What makes clones for services.
    pub(crate) fn workshop(&self) -> Workshop {
        Workshop::new(
            Arc::clone(&self.driver),
            self.store.clone(),
            self.guest_runner.clone(),
        )
    }

    /// Which VMM runs guests, with its version.
    pub(crate) fn vmm(&self) -> Result<String, Failure> {
        match &self.qemu {
            Some(qemu) => {
                let version = qemu::version(&qemu.program).map_err(Failure::platform)?;
                Ok(format!("QEMU {version}"))
            }
            None => {
                let identity = self.driver.identity(&self.machine).vmm;
                let words: Vec<&str> = identity.split(' ').take(2).collect();
                Ok(words.join(" "))
            }
        }
    }

    /// A clone's description; nothing, if a snapshot cannot serve what was asked for.
    pub(crate) fn clone_machine(&self, id: &str) -> Option<Machine> {
        let warm = self.warm_machine.clone();
        warm.map(|machine| Machine {
            id: id.to_owned(),
            ..machine
        })
    }

    /// A fresh microVM's description.
    pub(crate) fn machine(&self, id: &str) -> Machine {
        Machine {
            id: id.to_owned(),
            ..self.machine.clone()
        }
    }
}

/// The machine of the snapshot that can serve what was asked for: with as much memory as the template
/// says, which costs nothing until it is used, and one processor.
fn warm_machine(args: &MachineArgs, machine: &Machine, memory_mib: u32) -> Option<Machine> {
    let serves = !args.cold && machine.vcpus == 1 && machine.memory_mib <= memory_mib;
    serves.then(|| Machine {
        memory_mib,
        ..machine.clone()
    })
}

/// Opens a session with a guest that listens.
pub(crate) async fn open_session(vm: &dyn MicroVm) -> Result<Session, Failure> {
    let deadline = Instant::now() + CONNECT_TIMEOUT;
    let stream = connect(vm.vsock_path(), SESSION_PORT, deadline)
        .await
        .map_err(Failure::platform)?;
    Ok(Session::open(stream).await?)
}

/// Removes what killed runs left, and tells of it.
pub(crate) fn sweep() {
    for swept in rundir::sweep(&rundir::default_base()) {
        match swept.result {
            Ok(()) => {
                tracing::info!(path = %swept.path.display(), "removed what a killed run left");
            }
            Err(error) => {
                tracing::warn!(path = %swept.path.display(), %error, "cannot remove what a killed run left");
            }
        }
    }
}

/// Removes what killed owners left of networks; only root has any.
pub(crate) fn sweep_networks() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    match firelane_network::sweep() {
        Ok(0) => {}
        Ok(count) => tracing::info!(count, "removed what killed runs left of networks"),
        // Where there is no packet filter there are no networks either.
        Err(error) => tracing::debug!(%error, "nothing is removed of networks"),
    }
}

/// The default store.
pub(crate) fn open_store() -> Result<Store, Failure> {
    Ok(Store::open(&Store::default_root())?)
}

/// A template that is built, or one whose definition is known and that is built now.
async fn find_or_build(store: &Store, name: &str) -> Result<Template, Failure> {
    match Definition::find(name) {
        Ok(definition) => build_template(store.clone(), definition, Options::default()).await,
        // Built before from a definition file.
        Err(unknown) => match store.get(name) {
            Ok(template) => Ok(template),
            Err(StoreError::NotFound { .. } | StoreError::BadName { .. }) => Err(unknown.into()),
            Err(error) => Err(error.into()),
        },
    }
}

/// Builds a template, unless it is built already.
pub(crate) async fn build_template(
    store: Store,
    definition: Definition,
    options: Options,
) -> Result<Template, Failure> {
    let building = tokio::task::spawn_blocking(move || {
        let bar = BuildBar::start(definition.name());
        build(&store, &definition, &options, &bar)
    });
    match building.await {
        Ok(built) => Ok(built?),
        Err(error) => Err(Failure::platform(error)),
    }
}

/// What boots: the verified template, and its initrd. Files that were not verified since the host's boot are read.
async fn verify(
    template: Template,
    runner: PathBuf,
    tier: Tier,
) -> Result<(Verified<Template>, PathBuf), Failure> {
    let verifying = tokio::task::spawn_blocking(move || {
        let mut template = template.verified()?;
        let initrd = template.initrd_of_tier(&runner, tier)?;
        Ok::<_, StoreError>((template, initrd))
    });
    match verifying.await {
        Ok(verified) => Ok(verified?),
        Err(error) => Err(Failure::platform(error)),
    }
}

/// The bare guest's file: `$FIRELANE_BARE`, else beside this program.
pub(crate) fn bare_guest() -> Result<PathBuf, Failure> {
    let named = std::env::var_os("FIRELANE_BARE").map(PathBuf::from);
    let program = std::env::current_exe().map_err(Failure::platform)?;
    Ok(named.unwrap_or_else(|| program.with_file_name("firelane-bare")))
}

/// The guest-runner's file: `$FIRELANE_GUEST`, else beside this program.
pub(crate) fn guest_runner() -> Result<PathBuf, Failure> {
    let named = std::env::var_os("FIRELANE_GUEST").map(PathBuf::from);
    let program = std::env::current_exe().map_err(Failure::platform)?;
    let path = named.unwrap_or_else(|| program.with_file_name("firelane-guest"));
    if path.is_file() {
        return Ok(path);
    }
    let missing = anyhow::anyhow!("the guest-runner {} is missing", path.display());
    Err(Failure::platform(missing).with_remedy("run 'make build', or name it in FIRELANE_GUEST"))
}
