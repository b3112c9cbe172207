//! From a machine's description, or a snapshot of one, to a guest that listens.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::process::Stdio;

use async_trait::async_trait;
use firelane_host_proto::message::{Role, Vmm};
use firelane_launch::machine::Network;
use firelane_launch::place::Place;
use firelane_launch::qemu::{CONSOLE_FD, LINK_FD, OPENS_FD, Origin, Plan, QMP_FD, TAP_FD};
use firelane_sys::jail::{Jail, Opens};
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout_at};

use super::link::{Link, Peer};
use super::microvm::QemuVm;
use super::qmp::Qmp;
use super::{Qemu, find_program, migration, stuck};
use crate::driver::{BootError, ControlError, Machine, MicroVm, SnapshotFiles, StandBy};
use crate::hosted::{self, Request};
use crate::owned::{Owned, Start, step};
use crate::tail::Tail;
use crate::timeline::{Phase, Timeline};

/// What the VMM's keeper holds: above the VMM's own.
const KEPT_FD: i32 = OPENS_FD + 1;

/// A QEMU that answers; its guest, which is to boot or to go on from a snapshot, does not run yet.
pub(super) struct Standing {
    qemu: Qemu,
    machine: Machine,
    starting: Starting,
    kept: Option<Kept>,
    launched: Launched,
}

impl Standing {
    /// Starts it for `machine`, or for the snapshot of one.
    pub(super) async fn launch(
        qemu: &Qemu,
        machine: &Machine,
        snapshot: Option<&SnapshotFiles>,
        timeline: &mut Timeline,
    ) -> Result<Standing, BootError> {
        find_program(&qemu.program).map_err(|_| BootError::NoVmm {
            program: qemu.program.display().to_string(),
            remedy: super::probe::REMEDY.into(),
        })?;
        let (origin, kept) = match (snapshot, &machine.snapshot) {
            (Some(files), _) => (Origin::Clone, Some(Kept::open(files.clone())?)),
            (None, Some(files)) => (
                Origin::Template,
                Some(Kept::create(files.clone(), machine.memory_mib)?),
            ),
            (None, None) => (Origin::Boot, None),
        };
        let mut starting = Starting::new(qemu, machine, origin)?;
        let memory = kept.as_ref().map(|kept| &kept.memory);
        let deadline = Instant::now() + machine.boot_timeout;
        let launched = starting.launch(qemu, machine, memory, deadline, timeline);
        match launched.await {
            Ok(launched) => Ok(Standing {
                qemu: qemu.clone(),
                machine: machine.clone(),
                starting,
                kept,
                launched,
            }),
            Err(error) => {
                starting.owned.give_up().await;
                Err(error)
            }
        }
    }

    /// Starts its guest, and waits until that listens.
    pub(super) async fn start(self, timeline: &mut Timeline) -> Result<QemuVm, BootError> {
        let Standing {
            qemu,
            machine,
            mut starting,
            kept,
            launched,
        } = self;
        let deadline = Instant::now() + machine.boot_timeout;
        let Launched {
            mut monitor,
            link,
            mut stderr,
            mut console,
        } = launched;
        let guest = starting.start_guest(kept.as_ref(), &mut monitor, link, timeline);
        let error = match timeout_at(deadline, guest).await {
            Ok(Ok(link)) => {
                let parts = Parts {
                    kept,
                    monitor,
                    link,
                    stderr,
                    console,
                };
                return Ok(starting.into_vm(&qemu, &machine, parts));
            }
            Ok(Err(error)) => {
                let owned = &mut starting.owned;
                owned.explain(error, &mut stderr, &mut console).await
            }
            Err(_) => not_ready(&machine, stuck::seen(&mut monitor).await, &console),
        };
        starting.owned.give_up().await;
        Err(error)
    }
}

#[async_trait]
impl StandBy for Standing {
    fn pid(&self) -> u32 {
        self.starting.owned.vmm()
    }

    fn lives(&self) -> bool {
        self.starting.owned.lives()
    }

    async fn restore(
        self: Box<Self>,
        timeline: &mut Timeline,
    ) -> Result<Box<dyn MicroVm>, BootError> {
        Ok(Box::new(self.start(timeline).await?))
    }

    async fn discard(self: Box<Self>) -> Result<(), ControlError> {
        let removed = self.starting.owned.remove().await;
        removed.map_err(ControlError::Cleanup)
    }
}

fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> BootError {
    move |source| BootError::Unreadable {
        path: path.into(),
        source,
    }
}

/// A snapshot's files, open.
pub(super) struct Kept {
    pub(super) files: SnapshotFiles,
    pub(super) memory: File,
    pub(super) state: File,
}

impl Kept {
    /// Those of a snapshot that is there. The memory is open for reading only, and stays so: that
    /// is what keeps a clone from spoiling it.
    fn open(files: SnapshotFiles) -> Result<Kept, BootError> {
        files.mappable()?;
        let open = |path: &Path| File::open(path).map_err(unreadable(path));
        Ok(Kept {
            memory: open(&files.memory)?,
            state: open(&files.state)?,
            files,
        })
    }

    /// Those of one to be made; nobody else may read them until they are.
    pub(super) fn create(files: SnapshotFiles, memory_mib: u32) -> Result<Kept, BootError> {
        let create = |path: &Path| {
            let file = File::options()
                .read(true)
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(path);
            step("make a snapshot's file", file)
        };
        let kept = Kept {
            memory: create(&files.memory)?,
            state: create(&files.state)?,
            files,
        };
        let size = u64::from(memory_mib) << 20;
        step("size a snapshot's file", kept.memory.set_len(size))?;
        Ok(kept)
    }
}

/// What a started microVM is made of, beside its process.
struct Parts {
    kept: Option<Kept>,
    monitor: Qmp,
    link: Link,
    stderr: Tail,
    console: Tail,
}

/// A VMM that answers; its guest does not run yet.
pub(super) struct Launched {
    pub(super) monitor: Qmp,
    /// Our end of the link's port.
    link: StdUnixStream,
    pub(super) stderr: Tail,
    pub(super) console: Tail,
}

/// The VMM's ends of its sockets.
struct Ends {
    monitor: OwnedFd,
    link: OwnedFd,
    console: OwnedFd,
    /// Of a guest that has a network.
    tap: Option<OwnedFd>,
    /// The jail's, over which opens are answered.
    opens: Option<OwnedFd>,
}

/// A microVM that may still fail to start.
pub(super) struct Starting {
    pub(super) owned: Owned,
    origin: Origin,
}

impl Starting {
    /// Makes what it owns on the host. There is no process yet.
    pub(super) fn new(
        qemu: &Qemu,
        machine: &Machine,
        origin: Origin,
    ) -> Result<Starting, BootError> {
        let booted = (!origin.is_given()).then_some(&machine.kernel);
        let initrd = machine.initrd.as_ref().filter(|_| !origin.is_given());
        let files = booted.into_iter().chain(initrd).chain(&machine.rootfs);
        for path in files {
            File::open(path).map_err(unreadable(path))?;
        }
        let owned = match &qemu.hostd {
            Some(_) => Owned::make_hosted(&qemu.run_base, &machine.id)?,
            None => {
                let bounds = Plan::bounds(&machine.shape());
                Owned::make(&qemu.run_base, &machine.id, &bounds)?
            }
        };
        Ok(Starting { owned, origin })
    }

    /// Starts the VMM in its jail and waits until it answers.
    pub(super) async fn launch(
        &mut self,
        qemu: &Qemu,
        machine: &Machine,
        memory: Option<&File>,
        deadline: Instant,
        timeline: &mut Timeline,
    ) -> Result<Launched, BootError> {
        let (qmp, qmp_theirs) = step("make a socket", StdUnixStream::pair())?;
        let (link, link_theirs) = step("make a socket", StdUnixStream::pair())?;
        let (console, console_theirs) = step("make a socket", StdUnixStream::pair())?;
        let mut ends = Ends {
            monitor: qmp_theirs.into(),
            link: link_theirs.into(),
            console: console_theirs.into(),
            tap: self.tap(machine)?,
            opens: None,
        };
        let mut handed = None;
        if let Some(memory) = memory {
            let (opens, opens_theirs) = step("make a socket", StdUnixStream::pair())?;
            ends.opens = Some(opens_theirs.into());
            handed = Some((opens, step("open the memory", memory.try_clone())?));
        }
        let mut stderr = match &qemu.hostd {
            None => self.spawn(qemu, machine, ends)?,
            Some(socket) => self.have_started(socket, qemu, machine, ends).await?,
        };
        timeline.mark(Phase::Spawned);

        let mut console = Tail::of(step("read the console", tokio_stream(console))?);
        let limit = machine.boot_timeout;
        match timeout_at(deadline, open_monitor(handed, qmp, limit)).await {
            Ok(Ok(monitor)) => {
                self.owned.record_vmm()?;
                self.owned.confined().await?;
                timeline.mark(Phase::Configured);
                Ok(Launched {
                    monitor,
                    link,
                    stderr,
                    console,
                })
            }
            Ok(Err(error)) => Err(self.owned.explain(error, &mut stderr, &mut console).await),
            // Its monitor is what did not come.
            Err(_) => Err(not_ready(machine, String::new(), &console)),
        }
    }

    async fn start_guest(
        &self,
        kept: Option<&Kept>,
        monitor: &mut Qmp,
        link: StdUnixStream,
        timeline: &mut Timeline,
    ) -> Result<Link, BootError> {
        let mut peer = Peer::Fresh;
        if let (Origin::Clone, Some(kept)) = (self.origin, kept) {
            migration::load(monitor, &kept.state)
                .await
                .map_err(|error| BootError::Load(Box::new(error)))?;
            timeline.mark(Phase::Loaded);
            peer = Peer::Restored;
        }
        let nonce = step("draw a number", nonce())?;
        let link = step("open the link", tokio_stream(link))?;
        let mut link = step(
            "serve the ports",
            Link::start(&self.owned.run_dir.vsock(), link, nonce, peer),
        )?;
        monitor
            .command("cont")
            .await
            .map_err(|error| BootError::Monitor(error.into()))?;
        timeline.mark(Phase::Started);
        step(
            "attach to the guest",
            link.ready().await.map_err(io::Error::other),
        )?;
        timeline.mark(Phase::GuestReady);
        Ok(link)
    }

    /// The tap of a guest that runs for somebody. What becomes a snapshot, and what only writes one down, reaches
    /// nobody.
    fn tap(&self, machine: &Machine) -> Result<Option<OwnedFd>, BootError> {
        match (&machine.network, self.origin) {
            (Some(device), Origin::Boot | Origin::Clone) => step("hand over the tap", device.tap()),
            (None, _) | (_, Origin::Template | Origin::Saver) => Ok(None),
        }
    }

    /// Starts it in a jail of our own.
    fn spawn(&mut self, qemu: &Qemu, machine: &Machine, ends: Ends) -> Result<Tail, BootError> {
        let mut inherited: Vec<(OwnedFd, i32)> = vec![
            (ends.monitor, QMP_FD),
            (ends.link, LINK_FD),
            (ends.console, CONSOLE_FD),
        ];
        let has_tap = ends.tap.is_some();
        inherited.extend(ends.tap.map(|tap| (tap, TAP_FD)));
        inherited.extend(ends.opens.map(|opens| (opens, OPENS_FD)));
        let network = match (&machine.network, has_tap) {
            (Some(_), true) => Some(Network::Tap),
            (Some(_), false) => Some(Network::Nothing),
            (None, _) => None,
        };
        let jail = self.jail(qemu, machine, network);
        let start = Start::Jailed {
            program: &qemu.jail_program,
            jail: &jail,
        };
        self.owned.spawn(&start, inherited, Stdio::null())
    }

    fn jail(&self, qemu: &Qemu, machine: &Machine, network: Option<Network>) -> Jail {
        let plan = Plan {
            program: &qemu.program,
            shape: &machine.shape(),
            files: &machine.files(),
            origin: self.origin,
            acceleration: qemu.acceleration,
            tsc_khz: qemu.tsc_khz,
            network,
        };
        let user = self.owned.user();
        let mut jail = plan.jail(Place {
            mountpoint: self.owned.run_dir.jail_root(),
            user,
            cgroups: self.owned.record.cgroups.joined_through(),
            kept_descriptor: user.map(|_| KEPT_FD),
        });
        let booted = (!self.origin.is_given()).then_some(&machine.kernel);
        let initrd = machine.initrd.as_ref().filter(|_| !self.origin.is_given());
        let files = booted.into_iter().chain(initrd).chain(&machine.rootfs);
        jail.read_only.extend(files.cloned());
        jail
    }

    /// Has firelane-hostd start it.
    async fn have_started(
        &mut self,
        socket: &Path,
        qemu: &Qemu,
        machine: &Machine,
        ends: Ends,
    ) -> Result<Tail, BootError> {
        if machine.network.is_some() {
            return Err(BootError::NoNetwork {
                driver: "firelane-hostd",
            });
        }
        let vmm = Vmm::Qemu {
            origin: self.origin,
            acceleration: qemu.acceleration,
            tsc_khz: qemu.tsc_khz,
        };
        let mut request = Request::new(machine.shape(), vmm);
        for (role, path) in [
            (
                Role::Kernel,
                Some(&machine.kernel).filter(|_| !self.origin.is_given()),
            ),
            (
                Role::Initrd,
                machine.initrd.as_ref().filter(|_| !self.origin.is_given()),
            ),
            (Role::Rootfs, machine.rootfs.as_ref()),
        ] {
            if let Some(path) = path {
                request.give(role, File::open(path).map_err(unreadable(path))?);
            }
        }
        request.give(Role::Monitor, ends.monitor);
        request.give(Role::Link, ends.link);
        request.give(Role::Console, ends.console);
        if let Some(opens) = ends.opens {
            request.give(Role::Opens, opens);
        }
        let mut stderr = step("make a pipe", request.give_stderr())?;
        match self.owned.have_started(socket, request).await {
            Ok(()) => Ok(stderr),
            Err(error) => Err(hosted::explain(error, &mut stderr).await),
        }
    }

    fn into_vm(self, qemu: &Qemu, machine: &Machine, parts: Parts) -> QemuVm {
        let Parts {
            kept,
            monitor,
            link,
            stderr,
            console,
        } = parts;
        let snapshot = kept.filter(|_| self.origin == Origin::Template);
        QemuVm {
            child: self
                .owned
                .child
                .expect("a microVM that started has a process"),
            monitor,
            link,
            held: None,
            qemu: qemu.clone(),
            machine: machine.clone(),
            snapshot,
            vsock: self.owned.run_dir.vsock(),
            run_dir: self.owned.run_dir,
            cgroups: self.owned.record.cgroups,
            user: self.owned.user,
            stderr,
            console,
        }
    }
}

/// Hands the VMM its memory, if it has some in a file, and opens its monitor.
async fn open_monitor(
    handed: Option<(StdUnixStream, File)>,
    qmp: StdUnixStream,
    limit: std::time::Duration,
) -> Result<Qmp, BootError> {
    if let Some((opens, file)) = handed {
        let handing = tokio::task::spawn_blocking(move || hand_memory(&opens, &file, limit));
        let handed = handing.await.map_err(io::Error::other);
        step("hand the VMM its memory", handed.flatten())?;
    }
    Qmp::open(step("open the monitor", tokio_stream(qmp))?)
        .await
        .map_err(|error| BootError::Monitor(error.into()))
}

fn not_ready(machine: &Machine, stands: String, console: &Tail) -> BootError {
    BootError::NotReady {
        timeout: machine.boot_timeout,
        stands,
        console: console.text(),
    }
}

/// Answers the VMM's open of its memory.
fn hand_memory(opens: &StdUnixStream, memory: &File, limit: std::time::Duration) -> io::Result<()> {
    Opens::receive(opens.as_fd(), limit)?.answer(memory.as_fd(), limit)
}

/// Tells this life of the link from others. Random, so that nothing that a guest said in an earlier
/// life holds it.
fn nonce() -> io::Result<u64> {
    let mut bytes = [0; 8];
    // Up to 256 bytes come at once, or not at all: getrandom(2).
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(u64::from_ne_bytes(bytes))
}

fn tokio_stream(stream: StdUnixStream) -> io::Result<UnixStream> {
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}
