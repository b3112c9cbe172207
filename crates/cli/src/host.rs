//! What this machine has for running guests: store, template, driver, guest-runner.

use std::path::PathBuf;
use std::time::Duration;

use firelane_image::{Definition, Options, Store, StoreError, Template, build};
use firelane_vmm::driver::{Acceleration, Machine};
use firelane_vmm::qemu::{self, Accelerator, Qemu};
use firelane_vmm::rundir;
use uuid::Uuid;

use crate::args::{DriverChoice, MachineArgs};
use crate::failure::Failure;
use crate::progress::{BuildBar, Spinner};

/// How long a guest may take to boot.
const BOOT_TIMEOUT: Duration = Duration::from_secs(120);

/// Everything that a microVM is booted with.
pub(crate) struct Host {
    pub(crate) driver: Qemu,
    pub(crate) template: Template,
    pub(crate) accelerator: Accelerator,
    machine: Machine,
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
        if args.driver == DriverChoice::Firecracker {
            return Err(Failure::platform(anyhow::anyhow!(
                "this version has no Firecracker driver"
            ))
            .with_remedy("use --driver auto or --driver qemu"));
        }
        let program = qemu::default_program();
        qemu::find_program(&program).map_err(|error| {
            let remedy = error.remedy();
            Failure::platform(error).with_remedy(remedy)
        })?;
        sweep();
        let store = open_store()?;
        let template = find_or_build(&store, &args.template).await?;
        let runner = guest_runner()?;
        let initrd = template.initrd(&runner)?;
        let manifest = template.manifest();
        let machine = Machine {
            id: String::new(),
            kernel: template.vmlinux(),
            initrd,
            rootfs: template.rootfs(),
            memory_mib: args.memory_mib.unwrap_or(manifest.memory_mib),
            vcpus: args.vcpus,
            boot_timeout: BOOT_TIMEOUT,
            snapshot: None,
        };
        let mut driver = Qemu {
            program,
            jail_program: std::env::current_exe().map_err(Failure::platform)?,
            run_base: rundir::default_base(),
            acceleration: Acceleration::Tcg,
            tsc_khz: 0,
        };
        let probed = Machine {
            id: new_id(),
            ..machine.clone()
        };
        let spinner = Spinner::start("looking at the host");
        let accelerator = Accelerator::find(&driver, &probed, store.root(), fresh).await;
        drop(spinner);
        driver.acceleration = accelerator.acceleration();
        driver.tsc_khz = accelerator.tsc_khz;
        Ok(Host {
            driver,
            template,
            accelerator,
            machine,
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

/// A name that no other microVM has.
pub(crate) fn new_id() -> String {
    Uuid::now_v7().simple().to_string()
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

/// The guest-runner's file: `$FIRELANE_GUEST`, else beside this program.
fn guest_runner() -> Result<PathBuf, Failure> {
    let named = std::env::var_os("FIRELANE_GUEST").map(PathBuf::from);
    let program = std::env::current_exe().map_err(Failure::platform)?;
    let path = named.unwrap_or_else(|| program.with_file_name("firelane-guest"));
    if path.is_file() {
        return Ok(path);
    }
    let missing = anyhow::anyhow!("the guest-runner {} is missing", path.display());
    Err(Failure::platform(missing).with_remedy("run 'make build', or name it in FIRELANE_GUEST"))
}
