//! Snapshots of warmed guests: made on first use, kept by the store.

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use firelane_guest_proto::Lang;
use firelane_guest_proto::SESSION_PORT;
use firelane_guest_proto::message::WarmSpec;
use firelane_image::signing::{Ranges, Verified};
use firelane_image::{
    Found, Memory, Snapshot, SnapshotDraft, SnapshotOrigin, Store, StoreError, Template,
};
use firelane_vmm::connect::{ConnectError, connect};
use firelane_vmm::driver::{
    BootError, Driver, Machine, MicroVm, Refusal, SnapshotError, SnapshotFiles,
};
use firelane_vmm::memory::CheckedMemory;
use firelane_vmm::session::{Session, SessionError};
use firelane_vmm::timeline::Timeline;
use tokio::time::{Instant, sleep};

/// How long a guest that listens may take to open a session.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// What a guest's kernel has put off while programs ran is done once before the snapshot, and not by
/// every clone.
const SETTLING: Duration = Duration::from_secs(1);

/// Why there is no snapshot. Nothing of the attempt is left.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The guest did not boot.
    #[error("cannot boot a guest to make a snapshot of")]
    Boot(#[from] BootError),
    /// The guest was not reached.
    #[error("cannot reach the guest that becomes a snapshot")]
    Connect(#[from] ConnectError),
    /// The guest could not be warmed.
    #[error("cannot warm the guest that becomes a snapshot")]
    Warm(#[from] SessionError),
    /// The template's `warmup` names a language that does not exist.
    #[error("the template warms up an unknown language")]
    Language(#[from] firelane_guest_proto::lang::UnknownLang),
    /// The VMM did not make it.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// A task of ours failed.
    #[error("waiting for the store failed")]
    Task(#[from] tokio::task::JoinError),
}

impl MakeError {
    /// What the user can do about it, where that is known.
    #[must_use]
    pub fn remedy(&self) -> Option<String> {
        match self {
            MakeError::Store(error) => error.remedy(),
            MakeError::Boot(error) => error.remedy(),
            MakeError::Warm(SessionError::Refused(_)) | MakeError::Language(_) => Some(
                "correct 'warmup' in the template's definition, or boot without a snapshot: --cold"
                    .into(),
            ),
            _ => Some("boot without a snapshot: --cold".into()),
        }
    }
}

/// What a snapshot of this machine depends on. `machine` is the one that the snapshot is made of.
#[must_use]
pub fn origin(driver: &dyn Driver, template: &Template, machine: &Machine) -> SnapshotOrigin {
    SnapshotOrigin {
        cpu: driver.cpu(),
        initrd: machine.initrd.as_deref().map(file_name).unwrap_or_default(),
        kernel: file_name(&machine.kernel),
        memory_mib: machine.memory_mib,
        template: template.manifest().name.clone(),
        template_id: template.manifest().id.clone(),
        vcpus: machine.vcpus,
        vmm: driver.identity(machine).vmm,
    }
}

/// The snapshot of a template's warmed guest. Makes it if there is none, or waits while another
/// process makes it; `making` is called before either.
///
/// # Errors
/// [`MakeError`].
pub async fn find_or_make(
    driver: &dyn Driver,
    store: &Store,
    template: &Template,
    machine: &Machine,
    making: impl FnOnce(),
) -> Result<Verified<Snapshot>, MakeError> {
    let origin = origin(driver, template, machine);
    let tsc_khz = driver.identity(machine).tsc_khz;
    // Hashes the memory, unless it is known to be as it was, or handed out range by range.
    let (look, wanted) = (store.clone(), origin.clone());
    let memory = match driver.checks_memory() {
        true => Memory::Lazily,
        false => Memory::Whole,
    };
    let found = tokio::task::spawn_blocking(move || look.snapshot(&wanted, tsc_khz, memory));
    if let Some(snapshot) = found.await?? {
        return Ok(snapshot);
    }
    making();
    let store = store.clone();
    // Waits for a lock.
    let found =
        tokio::task::spawn_blocking(move || store.snapshot_or_draft(&origin, tsc_khz, memory));
    match found.await?? {
        Found::Snapshot(snapshot) => Ok(snapshot),
        Found::Draft(draft) => make(driver, template, machine, *draft).await,
    }
}

/// What is restored of a snapshot.
#[must_use]
pub fn files(snapshot: &Verified<Snapshot>) -> SnapshotFiles {
    let checked = snapshot.ranges().map(|ranges| {
        let checked: Arc<dyn CheckedMemory> = Arc::new(Sealed(ranges));
        checked
    });
    SnapshotFiles {
        memory: snapshot.memory(),
        state: snapshot.state(),
        checked,
    }
}

/// A snapshot's memory, of which each range is verified against its seal.
#[derive(Debug)]
struct Sealed(Arc<Ranges>);

impl CheckedMemory for Sealed {
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> Result<(), Refusal> {
        Ok(self.0.read_at(offset, bytes)?)
    }

    fn finish(&self) -> Result<(), Refusal> {
        Ok(self.0.finish()?)
    }
}

async fn make(
    driver: &dyn Driver,
    template: &Template,
    machine: &Machine,
    draft: SnapshotDraft,
) -> Result<Verified<Snapshot>, MakeError> {
    let spec = warm_spec(template)?;
    let machine = Machine {
        snapshot: Some(SnapshotFiles::new(draft.memory(), draft.state())),
        ..machine.clone()
    };
    let vm = driver.boot(&machine, &mut Timeline::start()).await?;
    match warm(&*vm, &spec).await {
        Ok(()) => vm.snapshot().await?,
        Err(error) => {
            if let Err(left) = vm.destroy().await {
                tracing::warn!(error = %left, "left to the next sweep");
            }
            return Err(error);
        }
    }
    let tsc_khz = driver.identity(&machine).tsc_khz;
    // Hashes the memory.
    let committed = tokio::task::spawn_blocking(move || draft.commit(tsc_khz));
    Ok(committed.await??)
}

async fn warm(vm: &dyn MicroVm, spec: &WarmSpec) -> Result<(), MakeError> {
    let deadline = Instant::now() + CONNECT_TIMEOUT;
    let stream = connect(vm.vsock_path(), SESSION_PORT, deadline).await?;
    let session = Session::open(stream).await?;
    session.warm(spec).await?;
    session.close().await;
    sleep(SETTLING).await;
    Ok(())
}

fn warm_spec(template: &Template) -> Result<WarmSpec, MakeError> {
    let mut snippets = Vec::new();
    for (lang, programs) in &template.manifest().warmup {
        let lang: Lang = lang.parse()?;
        snippets.extend(programs.iter().map(|program| (lang, program.clone())));
    }
    let env = template.manifest().env.clone().into_iter().collect();
    Ok(WarmSpec { snippets, env })
}

/// The last part of a path in the store.
pub(crate) fn file_name(path: &Path) -> String {
    let mut name = String::new();
    if let Some(last) = path.file_name() {
        // Names in the store are hexadecimal.
        let _ = write!(name, "{}", last.to_string_lossy());
    }
    name
}
