//! From nothing to a Firecracker that answers on its API.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use firelane_sys::cgroup::Bounds;
use firelane_sys::jail::Jail;
use tokio::time::Instant;

use super::api::{Api, ApiError};
use super::{Firecracker, Jailing};
use crate::child::Process;
use crate::driver::{BootError, Machine, SnapshotFiles};
use crate::owned::{Owned, Start, missing, step};
use crate::rundir::fits_socket;
use crate::tail::Tail;
use crate::timeline::{Phase, Timeline};

/// What Firecracker needs beside guest memory, in MiB: less than five of its own, page tables, and a
/// jailer's copy of its program.
const OVERHEAD_MIB: u32 = 64;
/// Threads of a Firecracker beside its processors, and its keeper.
const MAX_THREADS: u32 = 16;
/// A microVM with disk, vsock and entropy has 41.
const OPEN_FILES: u64 = 256;
/// Room in a snapshot's file for what is not memory, in MiB.
const STATE_MIB: u32 = 16;
/// The last descriptor that the VMM inherits: stderr.
const STDERR: i32 = 2;

/// Host devices that Firecracker finds in our jail; its jailer makes its own.
const DEVICES: [&str; 2] = ["/dev/kvm", "/dev/userfaultfd"];

/// Files of the host that a VMM gets to see.
#[derive(Debug, Default)]
pub(super) struct Shown {
    pub(super) read_only: Vec<PathBuf>,
    /// A folder for what it leaves behind.
    pub(super) snapshot: Option<PathBuf>,
}

impl Shown {
    /// Those of a machine that is booted, and may leave a snapshot in this folder.
    pub(super) fn boot(machine: &Machine, snapshot: Option<PathBuf>) -> Shown {
        let given = machine.initrd.iter().chain(&machine.rootfs);
        Shown {
            read_only: given.chain([&machine.kernel]).cloned().collect(),
            snapshot,
        }
    }

    /// Those of one that is restored; the memory's only if it is not handed to it page by page.
    pub(super) fn restore(machine: &Machine, files: &SnapshotFiles, paged: bool) -> Shown {
        let memory = Some(&files.memory).filter(|_| !paged);
        let files = memory.into_iter().chain([&files.state]);
        Shown {
            read_only: files.chain(&machine.rootfs).cloned().collect(),
            snapshot: None,
        }
    }
}

/// A Firecracker that answers and knows of no machine yet.
pub(super) struct Launched {
    pub(super) owned: Owned,
    pub(super) api: Api,
    /// The folder of its sockets.
    pub(super) folder: PathBuf,
    pub(super) stderr: Tail,
    pub(super) console: Tail,
}

impl Launched {
    /// Starts it in its jail, and connects.
    pub(super) async fn start(
        firecracker: &Firecracker,
        machine: &Machine,
        shown: Shown,
        deadline: Instant,
        timeline: &mut Timeline,
    ) -> Result<Launched, BootError> {
        for path in &shown.read_only {
            std::fs::File::open(path).map_err(|source| BootError::Unreadable {
                path: path.clone(),
                source,
            })?;
        }
        let mut owned = Owned::make(&firecracker.run_base, &machine.id, &bounds(machine))?;
        match open(firecracker, machine, shown, &mut owned, deadline, timeline).await {
            Ok((api, folder, stderr, console)) => Ok(Launched {
                owned,
                api,
                folder,
                stderr,
                console,
            }),
            Err(error) => {
                owned.give_up().await;
                Err(error)
            }
        }
    }

    /// Makes sure that it is confined, if it is to be.
    pub(super) fn confined(&self, firecracker: &Firecracker) -> Result<(), BootError> {
        match firecracker.jailing {
            Jailing::None => Ok(()),
            Jailing::Ours | Jailing::Jailer(_) => self.owned.confined(),
        }
    }

    /// Ends it; if it has died by itself, that is the error and not what followed from it.
    pub(super) async fn fail(mut self, error: BootError) -> BootError {
        let error = self
            .owned
            .explain(error, &mut self.stderr, &mut self.console)
            .await;
        self.owned.give_up().await;
        match error {
            BootError::Died(death) => BootError::Died(super::exit::explain(death)),
            error => error,
        }
    }
}

async fn open(
    firecracker: &Firecracker,
    machine: &Machine,
    shown: Shown,
    owned: &mut Owned,
    deadline: Instant,
    timeline: &mut Timeline,
) -> Result<(Api, PathBuf, Tail, Tail), BootError> {
    let user = firecracker.user(machine);
    let folder = step("make the VMM's folder", owned.run_dir.make_open(user))?;
    // The longest of the sockets' names.
    let socket = folder.join("api.sock");
    fits_socket(&socket)?;
    let jail = jail(firecracker, machine, owned, shown, &folder, &socket)?;
    let start = match firecracker.jailing {
        Jailing::None => Start::Plain {
            program: &jail.program,
            args: &jail.args,
        },
        Jailing::Ours | Jailing::Jailer(_) => Start::Jailed {
            program: &firecracker.jail_program,
            jail: &jail,
        },
    };
    let mut stderr = owned.spawn(&start, Vec::new(), Stdio::piped())?;
    timeline.mark(Phase::Spawned);
    let stdout = owned.child.as_mut().and_then(Process::take_stdout);
    let mut console = Tail::of(step("read the console", stdout.ok_or_else(missing))?);
    let connected = connect(&socket, owned, deadline).await;
    let api = match connected {
        Ok(api) => api,
        Err(error) => {
            let error = BootError::Monitor(error.into());
            let error = owned.explain(error, &mut stderr, &mut console).await;
            return Err(error);
        }
    };
    owned.record_vmm()?;
    Ok((api, folder, stderr, console))
}

/// Connects to the API, unless the process ends first.
async fn connect(socket: &Path, owned: &mut Owned, deadline: Instant) -> Result<Api, ApiError> {
    tokio::select! {
        api = Api::connect(socket, deadline) => api,
        () = owned.ended() => Err(ApiError::Ended),
    }
}

fn bounds(machine: &Machine) -> Bounds {
    Bounds {
        // Twice: where the run directory is in memory, what it writes when it is saved counts as its own.
        memory_bytes: u64::from(2 * machine.memory_mib + OVERHEAD_MIB) << 20,
        pids: MAX_THREADS + machine.vcpus,
        // The processors, and half of one for the devices.
        cpu_percent: machine.vcpus * 100 + 50,
    }
}

fn jail(
    firecracker: &Firecracker,
    machine: &Machine,
    owned: &Owned,
    shown: Shown,
    folder: &Path,
    socket: &Path,
) -> Result<Jail, BootError> {
    let user = firecracker.user(machine);
    let file_bytes = u64::from(machine.memory_mib + STATE_MIB) << 20;
    let ours = [
        ("--api-sock", socket.display().to_string()),
        ("--level", "Warn".into()),
    ];
    let ours = ours
        .into_iter()
        .flat_map(|(name, value)| [name.into(), value]);
    let mut jail = Jail {
        program: firecracker.program.clone(),
        args: Vec::new(),
        user,
        mountpoint: owned.run_dir.jail_root(),
        is_jailer: false,
        pid_namespace: true,
        read_only: shown.read_only,
        writable: vec![folder.to_owned()],
        devices: DEVICES.iter().map(PathBuf::from).collect(),
        cgroups: owned.record.cgroups.joined_through(),
        open_files: OPEN_FILES,
        file_bytes,
        last_descriptor: STDERR,
        opens_channel: None,
        owner: std::process::id(),
    };
    jail.writable.extend(shown.snapshot);
    match (&firecracker.jailing, user) {
        (Jailing::Jailer(jailer), Some(user)) => {
            let name = firecracker.program.file_name().unwrap_or_default();
            let base = owned.run_dir.jail_root();
            let root = base.join(name).join(&machine.id).join("root");
            step("make the jail's root", std::fs::create_dir_all(&root))?;
            let theirs = [
                ("--id", machine.id.clone()),
                ("--exec-file", firecracker.program.display().to_string()),
                ("--uid", user.to_string()),
                ("--gid", user.to_string()),
                ("--chroot-base-dir", base.display().to_string()),
                ("--resource-limit", format!("no-file={OPEN_FILES}")),
                ("--resource-limit", format!("fsize={file_bytes}")),
            ];
            let theirs = theirs
                .into_iter()
                .flat_map(|(name, value)| [name.into(), value]);
            jail.args = theirs.chain(["--".into()]).chain(ours).collect();
            jail.program = jailer.clone();
            jail.mountpoint = root;
            jail.is_jailer = true;
            // It makes its own, and fails if they are there.
            jail.devices.clear();
        }
        _ => {
            jail.read_only.push(firecracker.program.clone());
            jail.args = ["--id".into(), machine.id.clone()]
                .into_iter()
                .chain(ours)
                .collect();
        }
    }
    Ok(jail)
}
