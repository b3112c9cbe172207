//! The proof that this host restores microVMs: the bare guest in Firecracker, through the jail that real
//! work goes through.
//!
//! ```text
//!   boot ── vsock: counts 1 ── snapshot ── restore ── vsock: counts 2 ── nothing is left
//! ```
//!
//! It takes a fraction of a second, and says which step fails. Guests of templates are another matter: what
//! they need of KVM, the bare guest does not.

use std::path::PathBuf;
use std::time::Duration;

use firelane_agent::workshop::new_id;
use firelane_guest_proto::SESSION_PORT;
use firelane_guest_proto::message::{ExecSpec, Limits, Program};
use firelane_vmm::connect::connect;
use firelane_vmm::driver::{DiskLimits, Driver, Machine, MicroVm, SnapshotFiles};
use firelane_vmm::firecracker::Firecracker;
use firelane_vmm::rundir::{self, RunDir};
use firelane_vmm::session::{Event, Session};
use firelane_vmm::timeline::Timeline;
use firelane_vmm::trial::kvm_answers;
use tokio::time::{Instant, timeout};

use super::report::{Grade, Report};
use crate::drivers;
use crate::failure::Failure;
use crate::host::bare_guest;

/// Memory of the bare guest in MiB.
const MEMORY_MIB: u32 = 128;
/// How long each step may take; a host that can takes milliseconds.
const STEP: Duration = Duration::from_secs(10);

/// Proves the host, if it has Firecracker and KVM.
pub(super) async fn prove(report: &mut Report) -> Result<(), Failure> {
    const NAME: &str = "proof";
    let Some(Ok(firecracker)) = drivers::firecracker().await? else {
        // Why it is not used is told with the driver of runs.
        return Ok(());
    };
    if kvm_answers(firecracker.is_hosted()).is_err() {
        // Told already.
        return Ok(());
    }
    let kernel = bare_guest()?;
    if !kernel.is_file() {
        let detail = format!("the bare guest {} is missing", kernel.display());
        let remedy = "run 'make build', or name it in FIRELANE_BARE";
        report.add(NAME, Grade::Warning, detail, Some(remedy));
        return Ok(());
    }
    match run(&firecracker, kernel).await {
        Ok(took) => report.add(
            NAME,
            Grade::Ok,
            format!(
                "the bare guest answered {} ms after its boot began, and {} ms after its restore did (Firecracker {})",
                took.boot.as_millis(),
                took.restore.as_millis(),
                firecracker.version()
            ),
            None,
        ),
        Err(error) => {
            let remedy = "use a machine with KVM on which Firecracker runs";
            report.add(NAME, Grade::Warning, format!("{error:#}"), Some(remedy));
        }
    }
    Ok(())
}

/// From the start of each to the guest's answer.
struct Took {
    boot: Duration,
    restore: Duration,
}

async fn run(firecracker: &Firecracker, kernel: PathBuf) -> anyhow::Result<Took> {
    // What the snapshot takes is little, and swept with the folder if we are killed.
    let folder = RunDir::make(&rundir::default_base(), &new_id())?;
    let files = SnapshotFiles::new(folder.path().join("memory"), folder.path().join("state"));
    let took = in_steps(firecracker, kernel, files).await;
    folder.remove()?;
    took
}

async fn in_steps(
    firecracker: &Firecracker,
    kernel: PathBuf,
    files: SnapshotFiles,
) -> anyhow::Result<Took> {
    let restores = firecracker.version().restores();
    let machine = || Machine {
        id: new_id(),
        kernel: kernel.clone(),
        initrd: None,
        rootfs: None,
        memory_mib: MEMORY_MIB,
        vcpus: 1,
        boot_timeout: STEP,
        snapshot: restores.then(|| files.clone()),
        network: None,
        disk: DiskLimits::DEFAULT,
    };
    let begun = Instant::now();
    let vm = firecracker.boot(&machine(), &mut Timeline::start()).await?;
    let vm = counted(vm, 1).await?;
    let boot = begun.elapsed();
    if !restores {
        vm.destroy().await?;
        let version = firecracker.version();
        anyhow::bail!("Firecracker {version} boots, and is too old to restore snapshots");
    }
    vm.snapshot().await?;
    let begun = Instant::now();
    let clone = firecracker
        .restore(&machine(), &files, &mut Timeline::start())
        .await?;
    let clone = counted(clone, 2).await?;
    let restore = begun.elapsed();
    clone.destroy().await?;
    Ok(Took { boot, restore })
}

/// A guest that has counted in time; another one is destroyed.
async fn counted(vm: Box<dyn MicroVm>, expected: u32) -> anyhow::Result<Box<dyn MicroVm>> {
    let silent = || anyhow::anyhow!("the bare guest did not answer within {STEP:?}");
    let counting = timeout(STEP, count(&*vm, expected)).await;
    match counting.map_err(|_| silent()).flatten() {
        Ok(()) => Ok(vm),
        Err(error) => {
            vm.destroy().await?;
            Err(error)
        }
    }
}

/// Has the guest count, and checks the number.
async fn count(vm: &dyn MicroVm, expected: u32) -> anyhow::Result<()> {
    let stream = connect(vm.vsock_path(), SESSION_PORT, Instant::now() + STEP).await?;
    let session = Session::open(stream).await?;
    let spec = ExecSpec {
        trace_id: "doctor".into(),
        program: Program::Command {
            argv: vec!["counter".into()],
        },
        env: Vec::new(),
        cwd: None,
        limits: Limits::default(),
        pty: None,
    };
    let mut exec = session.exec(&spec).await?;
    let mut said = Vec::new();
    loop {
        match exec.next().await? {
            Event::Stdout(bytes) => said.extend(bytes),
            Event::Ended(_) => break,
            Event::Started | Event::Stderr(_) => {}
        }
    }
    session.close().await;
    let said = String::from_utf8_lossy(&said);
    anyhow::ensure!(
        said.trim() == expected.to_string(),
        "the bare guest counted {said:?}, not {expected}"
    );
    Ok(())
}
