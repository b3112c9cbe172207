//! From a machine's description, or a snapshot of one, to a guest that listens.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use firelane_guest_proto::SESSION_PORT;
use firelane_host_proto::message::Role;
use firelane_launch::firecracker::VSOCK;
use tokio::time::{Instant, timeout_at};

use super::Firecracker;
use super::api::{Api, ApiError, QUICK};
use super::disk::limiter;
use super::launch::{Launched, Shown, user};
use super::microvm::{FirecrackerVm, Origin, Socket};
use super::pager::{self, Pager, PagerError};
use super::requests::{
    Action, BootSource, Drive, Entropy, LoadSnapshot, MachineConfig, MemoryBackend, RateLimiter,
    Serial, TokenBucket, Vsock, VsockOverride,
};
use super::save::Place;
use super::sight::Sight;
use super::version::Version;
use crate::connect::{ConnectError, connect};
use crate::driver::{BootError, ControlError, Machine, MicroVm, SnapshotFiles, StandBy};
use crate::owned::step;
use crate::timeline::{Phase, Timeline};

/// The guest's number on its vsock; 0 to 2 are reserved. Each VMM has a vsock of its own.
const GUEST_CID: u32 = 3;
/// How long the start of the guest may take: its kernel is read here.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the loading of a snapshot may take; its memory is mapped, not read.
const LOAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long it may take after that until the guest's memory is seen to be handed over, which comes before the answer.
const HANDOVER_TIMEOUT: Duration = Duration::from_secs(2);
/// Serial output that passes in a second, in bytes, and at once: enough for what a kernel says when
/// it panics. A guest cannot keep the host busy with more.
const SERIAL_BYTES: u64 = 64 << 10;
/// Random bytes that a guest gets from the host in a second.
const ENTROPY_BYTES: u64 = 64 << 10;
const SECOND_MS: u64 = 1000;

/// Boots `machine`.
pub(super) async fn boot(
    firecracker: &Firecracker,
    machine: &Machine,
    timeline: &mut Timeline,
) -> Result<FirecrackerVm, BootError> {
    let deadline = Instant::now() + machine.boot_timeout;
    let sight = firecracker.sight();
    let place = machine.snapshot.clone();
    let place = place.map(|files| Place::make(files, sight));
    let place = step("make the snapshot's folder", place.transpose())?;
    let folder = place.as_ref().map(|place| place.folder().to_owned());
    let shown = Shown::boot(machine, folder);
    let mut launched = Launched::start(firecracker, machine, shown, deadline, timeline).await?;
    let vsock = launched.folder.join(VSOCK);
    let seen = sight.of(Role::Folder, &launched.folder).join(VSOCK);
    let started = async {
        configure(&mut launched.api, firecracker, machine, &seen).await?;
        timeline.mark(Phase::Configured);
        let start = Action {
            action_type: "InstanceStart",
        };
        launched.api.put("/actions", &start, START_TIMEOUT).await?;
        timeline.mark(Phase::Started);
        Ok(())
    };
    let started: Result<(), ApiError> = started.await;
    let opened = started.map_err(refused).and_then(|()| open(&vsock));
    let opened = match opened {
        Ok(socket) => launched.confined(firecracker).await.map(|()| socket),
        Err(error) => Err(error),
    };
    let listening = match opened {
        Ok(socket) => listens(&mut launched, socket, machine, deadline).await,
        Err(error) => Err(error),
    };
    match listening {
        Ok(socket) => {
            timeline.mark(Phase::GuestReady);
            let place = place.map_or(Origin::Booted, Origin::Template);
            Ok(FirecrackerVm::new(
                firecracker,
                machine,
                launched,
                socket,
                place,
            ))
        }
        Err(error) => Err(launched.fail(error).await),
    }
}

fn open(vsock: &Path) -> Result<Socket, BootError> {
    step("open the microVM's socket", Socket::open(vsock))
}

/// A Firecracker that answers, and waits for the snapshot of a machine.
pub(super) struct Standing {
    firecracker: Firecracker,
    machine: Machine,
    files: SnapshotFiles,
    /// Whether its guest gets its memory page by page.
    paged: bool,
    launched: Launched,
}

impl Standing {
    pub(super) async fn launch(
        firecracker: &Firecracker,
        machine: &Machine,
        files: &SnapshotFiles,
        timeline: &mut Timeline,
    ) -> Result<Standing, BootError> {
        if !firecracker.version.restores() {
            return Err(BootError::NoVmm {
                program: format!(
                    "a Firecracker that restores snapshots (this is {})",
                    firecracker.version
                ),
                remedy: format!(
                    "name v{} or later in FIRELANE_FIRECRACKER, or boot without a snapshot: --cold",
                    Version::RESTORE_FLOOR
                ),
            });
        }
        let deadline = Instant::now() + machine.boot_timeout;
        let paged = firecracker.memory.pages(files.checked.is_some());
        if !paged {
            files.mappable()?;
        }
        let shown = Shown::restore(machine, files, paged);
        let launched = Launched::start(firecracker, machine, shown, deadline, timeline).await?;
        timeline.mark(Phase::Configured);
        Ok(Standing {
            firecracker: firecracker.clone(),
            machine: machine.clone(),
            files: files.clone(),
            paged,
            launched,
        })
    }

    async fn load(self, timeline: &mut Timeline) -> Result<FirecrackerVm, BootError> {
        let Standing {
            firecracker,
            machine,
            files,
            paged,
            mut launched,
        } = self;
        let deadline = Instant::now() + machine.boot_timeout;
        let pager = match paged {
            true => match page(&firecracker, &machine, &files, &launched, deadline) {
                Ok(pager) => Some(pager),
                Err(error) => return Err(launched.fail(error).await),
            },
            false => None,
        };
        let sight = firecracker.sight();
        let vsock = launched.folder.join(VSOCK);
        let folder = sight.of(Role::Folder, &launched.folder);
        let memory = match paged {
            true => folder.join(pager::SOCKET),
            false => sight.of(Role::Memory, &files.memory),
        };
        let load = LoadSnapshot {
            snapshot_path: &sight.of(Role::State, &files.state),
            mem_backend: MemoryBackend {
                backend_type: match paged {
                    true => "Uffd",
                    false => "File",
                },
                backend_path: &memory,
            },
            resume_vm: true,
            vsock_override: VsockOverride {
                uds_path: &folder.join(VSOCK),
            },
            clock_realtime: true,
        };
        let loaded = launched
            .api
            .put("/snapshot/load", &load, LOAD_TIMEOUT)
            .await;
        let pager = match handed_over(loaded, pager).await {
            Ok(pager) => pager,
            Err(NotLoaded::Api(error)) => return Err(refused_snapshot(launched, error).await),
            Err(NotLoaded::Pager(error)) => {
                launched.owned.give_up().await;
                return Err(BootError::Load(error.into()));
            }
        };
        // It goes on where it was, and there it listened.
        for phase in [Phase::Loaded, Phase::Started, Phase::GuestReady] {
            timeline.mark(phase);
        }
        let confined = launched.confined(&firecracker).await;
        let opened = confined.and_then(|()| open(&vsock));
        match opened {
            Ok(socket) => {
                let origin = Origin::Restored(pager);
                Ok(FirecrackerVm::new(
                    &firecracker,
                    &machine,
                    launched,
                    socket,
                    origin,
                ))
            }
            Err(error) => Err(launched.fail(error).await),
        }
    }
}

#[async_trait]
impl StandBy for Standing {
    fn pid(&self) -> u32 {
        self.launched.owned.vmm()
    }

    fn lives(&self) -> bool {
        self.launched.owned.lives()
    }

    async fn restore(
        self: Box<Self>,
        timeline: &mut Timeline,
    ) -> Result<Box<dyn MicroVm>, BootError> {
        Ok(Box::new(self.load(timeline).await?))
    }

    async fn discard(self: Box<Self>) -> Result<(), ControlError> {
        let removed = self.launched.owned.remove().await;
        removed.map_err(ControlError::Cleanup)
    }
}

/// Whoever hands this machine's VMM its guest's memory.
fn page(
    firecracker: &Firecracker,
    machine: &Machine,
    files: &SnapshotFiles,
    launched: &Launched,
    deadline: Instant,
) -> Result<Pager, BootError> {
    let owner = pager::Owner {
        id: &machine.id,
        vmm: step("find the VMM", launched.owned.killer())?,
        user: user(firecracker, &launched.owned),
        folder: &launched.folder,
        closed: match firecracker.sight() {
            Sight::Hosted => launched.folder.parent(),
            Sight::AsOutside => None,
        },
        memory_bytes: u64::from(machine.memory_mib) << 20,
    };
    let pager = Pager::start(&owner, files, deadline.into_std());
    step("hand out the snapshot's memory", pager)
}

/// Why a snapshot is not loaded.
enum NotLoaded {
    Api(ApiError),
    Pager(Arc<PagerError>),
}

/// A snapshot is loaded when the VMM says so, and has handed over its guest's memory if that is paged. If the pager
/// has ended the VMM, that is the error, and not what followed from it.
async fn handed_over(
    loaded: Result<(), ApiError>,
    pager: Option<Pager>,
) -> Result<Option<Pager>, NotLoaded> {
    let Some(mut pager) = pager else {
        return loaded.map(|()| None).map_err(NotLoaded::Api);
    };
    let handed = match loaded {
        Ok(()) => pager.handed_over(HANDOVER_TIMEOUT).await,
        Err(error) => match pager.failure() {
            Some(failure) => Err(failure),
            None => return Err(NotLoaded::Api(error)),
        },
    };
    handed.map(|()| Some(pager)).map_err(NotLoaded::Pager)
}

/// After a failed load Firecracker ends; what it answered says more than that.
async fn refused_snapshot(launched: Launched, error: ApiError) -> BootError {
    match error {
        ApiError::Refused { .. } => {
            launched.owned.give_up().await;
            BootError::Load(error.into())
        }
        error => launched.fail(BootError::Load(error.into())).await,
    }
}

fn refused(error: ApiError) -> BootError {
    BootError::Monitor(error.into())
}

async fn configure(
    api: &mut Api,
    firecracker: &Firecracker,
    machine: &Machine,
    vsock: &Path,
) -> Result<(), ApiError> {
    let config = MachineConfig {
        vcpu_count: machine.vcpus,
        mem_size_mib: machine.memory_mib,
        smt: false,
    };
    api.put("/machine-config", &config, QUICK).await?;
    let sight = firecracker.sight();
    let initrd = machine.initrd.as_ref();
    let initrd = initrd.map(|initrd| sight.of(Role::Initrd, initrd));
    let source = BootSource {
        kernel_image_path: &sight.of(Role::Kernel, &machine.kernel),
        initrd_path: initrd.as_deref(),
        boot_args: &kernel_arguments(machine),
    };
    api.put("/boot-source", &source, QUICK).await?;
    if let Some(rootfs) = &machine.rootfs {
        let drive = Drive {
            drive_id: "root",
            path_on_host: &sight.of(Role::Rootfs, rootfs),
            // The initrd mounts it: with `true` Firecracker would say `root=` on the command line.
            is_root_device: false,
            is_read_only: true,
            rate_limiter: limiter(machine.disk),
        };
        api.put("/drives/root", &drive, QUICK).await?;
    }
    let device = Vsock {
        guest_cid: GUEST_CID,
        uds_path: vsock,
    };
    api.put("/vsock", &device, QUICK).await?;
    let bucket = |size| TokenBucket {
        size,
        refill_time: SECOND_MS,
    };
    let entropy = Entropy {
        rate_limiter: RateLimiter {
            bandwidth: Some(bucket(ENTROPY_BYTES)),
            ops: None,
        },
    };
    api.put("/entropy", &entropy, QUICK).await?;
    if firecracker.version.has_serial_limit_and_clock() {
        let serial = Serial {
            rate_limiter: bucket(SERIAL_BYTES),
        };
        api.put("/serial", &serial, QUICK).await?;
    }
    Ok(())
}

/// The guest kernel's command line. Source: Linux, `Documentation/admin-guide/kernel-parameters.txt`;
/// Firecracker's own default, which this replaces, says `nomodule`, and our guests load modules.
pub(super) fn kernel_arguments(machine: &Machine) -> String {
    let mut words = vec![
        "console=ttyS0",
        "8250.nr_uarts=1",
        "quiet",
        "loglevel=4",
        "reboot=k",
        "panic=-1",
        "cryptomgr.notests=1",
        "random.trust_cpu=on",
        // What no program of ours needs, and attacks on the kernel do.
        "vsyscall=none",
        "debugfs=off",
        "oops=panic",
        "slab_nomerge",
        "i8042.noaux",
        "i8042.nomux",
        "i8042.dumbkbd",
        "swiotlb=noforce",
    ];
    // A guest without an initrd is no Linux, and needs no more than it finds.
    if machine.initrd.is_none() {
        words.retain(|word| word.starts_with("reboot") || word.starts_with("panic"));
    }
    words.join(" ")
}

/// Waits until the guest takes connections to its session port, or its VMM ends.
async fn listens(
    launched: &mut Launched,
    socket: Socket,
    machine: &Machine,
    deadline: Instant,
) -> Result<Socket, BootError> {
    let refused = ConnectError::Refused { port: SESSION_PORT };
    let connected = async {
        tokio::select! {
            connected = connect(socket.path(), SESSION_PORT, deadline) => connected.map(drop),
            () = launched.owned.ended() => Err(refused),
        }
    };
    match timeout_at(deadline, connected).await {
        Ok(Ok(())) => Ok(socket),
        _ => Err(BootError::NotReady {
            timeout: machine.boot_timeout,
            stands: String::new(),
            console: launched.console.text(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::DiskLimits;

    #[test]
    fn a_guest_that_is_no_linux_gets_no_words_for_one() {
        let machine = Machine {
            id: "vm-1".into(),
            kernel: "/bare".into(),
            initrd: None,
            rootfs: None,
            memory_mib: 128,
            vcpus: 1,
            boot_timeout: Duration::from_secs(1),
            snapshot: None,
            network: None,
            disk: DiskLimits::DEFAULT,
        };
        assert_eq!(kernel_arguments(&machine), "reboot=k panic=-1");
        let linux = Machine {
            initrd: Some("/initrd".into()),
            ..machine
        };
        assert!(kernel_arguments(&linux).contains("console=ttyS0"));
        assert!(!kernel_arguments(&linux).contains("nomodule"));
    }
}
