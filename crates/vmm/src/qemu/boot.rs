//! From a machine's description to a guest that listens.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use command_fds::{CommandFdExt, FdMapping};
use firelane_sys::cgroup::{Bounds, Cgroups};
use firelane_sys::jail::{self, Jail};
use firelane_sys::process::ProcessId;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::args::{self, CONSOLE_FD, LINK_FD, QMP_FD, TB_SIZE_MIB};
use super::link::Link;
use super::microvm::QemuVm;
use super::qmp::Qmp;
use super::{Qemu, find_program};
use crate::driver::{Acceleration, BootError, Machine};
use crate::rundir::{Record, RunDir};
use crate::tail::Tail;
use crate::timeline::{Phase, Timeline};

/// What QEMU needs beside guest memory and translated code, in MiB.
const OVERHEAD_MIB: u32 = 160;
/// Threads of a QEMU: processors, its own, and workers for disk reads.
const MAX_THREADS: u32 = 128;
const OPEN_FILES: u64 = 256;
/// First of the user numbers that VMMs run as. Source: systemd, "Users, Groups, UIDs and GIDs on
/// systemd Systems": numbers from here up to 2^31 are not assigned to anything.
const FIRST_USER: u32 = 0x7000_0000;
/// How many of them are used.
const USERS: u32 = 1 << 20;

/// Host folders that QEMU finds in its jail: its program, libraries and firmware.
const SYSTEM_FOLDERS: [&str; 6] = [
    "/usr",
    "/lib",
    "/lib64",
    "/bin",
    "/sbin",
    "/etc/ld.so.cache",
];
const DEVICES: [&str; 3] = ["/dev/null", "/dev/zero", "/dev/urandom"];

pub(super) async fn boot(
    qemu: &Qemu,
    machine: &Machine,
    timeline: &mut Timeline,
) -> Result<QemuVm, BootError> {
    find_program(&qemu.program).map_err(|_| BootError::NoVmm {
        program: qemu.program.display().to_string(),
        remedy: super::probe::REMEDY.into(),
    })?;
    for path in [&machine.kernel, &machine.initrd, &machine.rootfs] {
        File::open(path).map_err(|source| BootError::Unreadable {
            path: path.clone(),
            source,
        })?;
    }
    let run_dir = RunDir::make(&qemu.run_base, &machine.id)?;
    let cgroups = Cgroups::make(&machine.id, &bounds(machine));
    let mut starting = Starting {
        record: Record { vmm: None, cgroups },
        run_dir,
        child: None,
    };
    match starting.start(qemu, machine, timeline).await {
        Ok((monitor, link, stderr, console)) => {
            Ok(starting.into_vm(monitor, link, stderr, console))
        }
        Err(error) => {
            starting.give_up().await;
            Err(error)
        }
    }
}

fn bounds(machine: &Machine) -> Bounds {
    let memory_mib = u64::from(machine.memory_mib + TB_SIZE_MIB + OVERHEAD_MIB);
    Bounds {
        memory_bytes: memory_mib << 20,
        pids: MAX_THREADS + machine.vcpus,
        // The processors, and half of one for the devices.
        cpu_percent: machine.vcpus * 100 + 50,
    }
}

/// A microVM that may still fail to start.
struct Starting {
    run_dir: RunDir,
    record: Record,
    child: Option<Child>,
}

impl Starting {
    async fn start(
        &mut self,
        qemu: &Qemu,
        machine: &Machine,
        timeline: &mut Timeline,
    ) -> Result<(Qmp, Link, Tail, Tail), BootError> {
        // On record before there is a process in them.
        step("record the microVM", self.run_dir.record(&self.record))?;
        let (qmp, qmp_theirs) = step("make a socket", StdUnixStream::pair())?;
        let (link, link_theirs) = step("make a socket", StdUnixStream::pair())?;
        let (console, console_theirs) = step("make a socket", StdUnixStream::pair())?;
        let inherited = [
            (qmp_theirs, QMP_FD),
            (link_theirs, LINK_FD),
            (console_theirs, CONSOLE_FD),
        ];
        let jail = self.jail(qemu, machine);
        let mut child = step("start the VMM", spawn(&qemu.jail_program, &jail, inherited))?;
        let stderr = child.stderr.take().map(Tail::of);
        let pid = child.id();
        self.child = Some(child);
        let mut stderr = step("read the VMM's stderr", stderr.ok_or_else(missing))?;
        let pid = step("find the VMM", pid.ok_or_else(missing))?;
        self.record.vmm = Some(step("find the VMM", ProcessId::of(pid))?);
        step("record the VMM", self.run_dir.record(&self.record))?;
        timeline.mark(Phase::Spawned);

        let mut console = Tail::of(step("read the console", tokio_stream(console))?);
        let guest = self.start_guest(machine, qmp, link, timeline);
        match timeout(machine.boot_timeout, guest).await {
            Ok(Ok((monitor, link))) => Ok((monitor, link, stderr, console)),
            Ok(Err(error)) => Err(self.explain(error, &mut stderr, &mut console).await),
            Err(_) => Err(BootError::NotReady {
                timeout: machine.boot_timeout,
                console: console.text(),
            }),
        }
    }

    async fn start_guest(
        &self,
        machine: &Machine,
        qmp: StdUnixStream,
        link: StdUnixStream,
        timeline: &mut Timeline,
    ) -> Result<(Qmp, Link), BootError> {
        let mut monitor = Qmp::open(step("open the monitor", tokio_stream(qmp))?)
            .await
            .map_err(BootError::Monitor)?;
        timeline.mark(Phase::Configured);
        let nonce = nonce(&machine.id);
        let link = step("open the link", tokio_stream(link))?;
        let mut link = step(
            "serve the ports",
            Link::start(&self.run_dir.vsock(), link, nonce),
        )?;
        monitor.command("cont").await.map_err(BootError::Monitor)?;
        timeline.mark(Phase::Started);
        step(
            "attach to the guest",
            link.ready().await.map_err(io::Error::other),
        )?;
        timeline.mark(Phase::GuestReady);
        Ok((monitor, link))
    }

    /// If the VMM has died, that is the error and not what followed from it.
    async fn explain(
        &mut self,
        error: BootError,
        stderr: &mut Tail,
        console: &mut Tail,
    ) -> BootError {
        let grace = std::time::Duration::from_millis(500);
        let Some(child) = self.child.as_mut() else {
            return error;
        };
        match timeout(grace, super::microvm::death(child, stderr, console)).await {
            Ok(death) => BootError::Died(death),
            Err(_) => error,
        }
    }

    fn jail(&self, qemu: &Qemu, machine: &Machine) -> Jail {
        let mut read_only: Vec<PathBuf> = SYSTEM_FOLDERS.iter().map(PathBuf::from).collect();
        read_only.retain(|path| path.exists());
        if !qemu.program.starts_with("/usr") {
            read_only.push(qemu.program.clone());
        }
        read_only.extend([&machine.kernel, &machine.initrd, &machine.rootfs].map(Clone::clone));
        let mut devices: Vec<PathBuf> = DEVICES.iter().map(PathBuf::from).collect();
        if qemu.acceleration == Acceleration::Kvm {
            devices.push("/dev/kvm".into());
        }
        Jail {
            program: qemu.program.clone(),
            args: args::arguments(machine, qemu.acceleration, qemu.tsc_khz),
            user: rustix::process::geteuid()
                .is_root()
                .then(|| user_of(&machine.id)),
            mountpoint: self.run_dir.jail_root(),
            read_only,
            devices,
            cgroup_procs: self.record.cgroups.procs(),
            open_files: OPEN_FILES,
            last_descriptor: CONSOLE_FD,
            owner: std::process::id(),
        }
    }

    /// Removes everything; what resists is left to the next sweep.
    async fn give_up(self) {
        let ended = match self.child {
            Some(mut child) => super::microvm::end(&mut child).await,
            None => Ok(()),
        };
        let removed = ended
            .and_then(|()| self.record.cgroups.remove())
            .and_then(|()| self.run_dir.remove());
        if let Err(error) = removed {
            tracing::warn!(%error, "left to the next sweep");
        }
    }

    fn into_vm(self, monitor: Qmp, link: Link, stderr: Tail, console: Tail) -> QemuVm {
        QemuVm {
            child: self.child.expect("a microVM that started has a process"),
            monitor,
            _link: link,
            vsock: self.run_dir.vsock(),
            run_dir: self.run_dir,
            cgroups: self.record.cgroups,
            stderr,
            console,
        }
    }
}

fn spawn(
    jail_program: &Path,
    jail: &Jail,
    inherited: [(StdUnixStream, i32); 3],
) -> io::Result<Child> {
    let description = serde_json::to_string(jail).map_err(io::Error::other)?;
    let mut command = Command::new(jail_program);
    command
        .arg(jail::ARGUMENT)
        .arg(description)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mappings = inherited
        .into_iter()
        .map(|(stream, child_fd)| FdMapping {
            parent_fd: OwnedFd::from(stream),
            child_fd,
        })
        .collect();
    command.fd_mappings(mappings).map_err(io::Error::other)?;
    command.spawn()
}

/// A user of its own for each microVM, so that no VMM can touch another's process.
fn user_of(id: &str) -> u32 {
    FIRST_USER + u32::try_from(hash(id) % u64::from(USERS)).expect("the remainder is below 2^20")
}

/// Tells this life of the link from others.
fn nonce(id: &str) -> u64 {
    hash(id) ^ u64::from(std::process::id())
}

/// FNV-1a, 64 bits. Nothing depends on it being hard to guess.
pub(super) fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn tokio_stream(stream: StdUnixStream) -> io::Result<UnixStream> {
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

fn missing() -> io::Error {
    io::Error::other("the process has none")
}

fn step<T>(step: &'static str, result: io::Result<T>) -> Result<T, BootError> {
    result.map_err(|source| BootError::Step { step, source })
}
