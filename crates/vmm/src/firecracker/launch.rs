//! From nothing to a Firecracker that answers on its API.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use firelane_host_proto::message::{Role, Vmm};
use firelane_launch::firecracker::{API_SOCKET, OPEN_FILES, Origin, Plan, STDERR_FD};
use firelane_launch::place::Place;
use firelane_sys::jail::Jail;
use tokio::time::Instant;

use super::api::{Api, ApiError};
use super::{Firecracker, Jailing};
use crate::child::Process;
use crate::driver::{BootError, Machine, SnapshotFiles};
use crate::hosted::{self, Request};
use crate::owned::{Owned, Start, missing, step};
use crate::rundir::fits_socket;
use crate::tail::Tail;
use crate::timeline::{Phase, Timeline};

/// What its keeper holds.
const KEPT_FD: i32 = STDERR_FD + 1;

/// Files of the host that a VMM gets to see, and what for.
#[derive(Debug)]
pub(super) struct Shown {
    origin: Origin,
    read_only: Vec<(Role, PathBuf)>,
    /// A folder for what it leaves behind.
    snapshot: Option<PathBuf>,
}

impl Shown {
    /// Those of a machine that is booted, and may leave a snapshot in this folder.
    pub(super) fn boot(machine: &Machine, snapshot: Option<PathBuf>) -> Shown {
        let kernel = (Role::Kernel, Some(&machine.kernel));
        let initrd = (Role::Initrd, machine.initrd.as_ref());
        let rootfs = (Role::Rootfs, machine.rootfs.as_ref());
        Shown {
            origin: match snapshot {
                Some(_) => Origin::Template,
                None => Origin::Boot,
            },
            read_only: present([kernel, initrd, rootfs]),
            snapshot,
        }
    }

    /// Those of one that is restored; the memory's only if it is not handed to it page by page.
    pub(super) fn restore(machine: &Machine, files: &SnapshotFiles, paged: bool) -> Shown {
        let memory = (Role::Memory, Some(&files.memory).filter(|_| !paged));
        let state = (Role::State, Some(&files.state));
        let rootfs = (Role::Rootfs, machine.rootfs.as_ref());
        Shown {
            origin: match paged {
                true => Origin::PagedClone,
                false => Origin::Clone,
            },
            read_only: present([memory, state, rootfs]),
            snapshot: None,
        }
    }
}

fn present(files: [(Role, Option<&PathBuf>); 3]) -> Vec<(Role, PathBuf)> {
    let present = |(role, path): (Role, Option<&PathBuf>)| Some((role, path?.clone()));
    files.into_iter().filter_map(present).collect()
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
        let mut opened = Vec::new();
        for (role, path) in &shown.read_only {
            let file = File::open(path).map_err(|source| BootError::Unreadable {
                path: path.clone(),
                source,
            })?;
            opened.push((*role, file));
        }
        let (run_base, id) = (&firecracker.run_base, &machine.id);
        let mut owned = match firecracker.jailing {
            Jailing::Hostd(_) => Owned::make_hosted(run_base, id)?,
            _ => Owned::make(run_base, id, &Plan::bounds(&machine.shape()))?,
        };
        let spawned = match &firecracker.jailing {
            Jailing::Hostd(socket) => {
                let started = have_started(socket, machine, shown, opened, &mut owned);
                started.await
            }
            _ => spawn(firecracker, machine, shown, &mut owned),
        };
        let launched = match spawned {
            Ok(spawned) => {
                timeline.mark(Phase::Spawned);
                open(spawned, &mut owned, deadline).await
            }
            Err(error) => Err(error),
        };
        match launched {
            Ok((api, spawned)) => Ok(Launched {
                owned,
                api,
                folder: spawned.folder,
                stderr: spawned.stderr,
                console: spawned.console,
            }),
            Err(error) => {
                owned.give_up().await;
                Err(error)
            }
        }
    }

    /// Makes sure that it is confined, if it is to be.
    pub(super) async fn confined(&mut self, firecracker: &Firecracker) -> Result<(), BootError> {
        match firecracker.jailing {
            Jailing::None => Ok(()),
            Jailing::Ours | Jailing::Jailer(_) | Jailing::Hostd(_) => self.owned.confined().await,
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

/// A Firecracker that may not listen yet.
struct Spawned {
    folder: PathBuf,
    stderr: Tail,
    console: Tail,
}

/// Starts it here.
fn spawn(
    firecracker: &Firecracker,
    machine: &Machine,
    shown: Shown,
    owned: &mut Owned,
) -> Result<Spawned, BootError> {
    let user = user(firecracker, owned);
    let folder = step("make the VMM's folder", owned.run_dir.make_open(user))?;
    if let Some(snapshot) = &shown.snapshot {
        let given = std::os::unix::fs::chown(snapshot, user, user);
        step("give the VMM the snapshot's folder", given)?;
    }
    fits_socket(&folder.join(API_SOCKET))?;
    let jail = jail(firecracker, machine, owned, shown, &folder)?;
    let start = match firecracker.jailing {
        Jailing::None => Start::Plain {
            program: &jail.program,
            args: &jail.args,
        },
        _ => Start::Jailed {
            program: &firecracker.jail_program,
            jail: &jail,
        },
    };
    let stderr = owned.spawn(&start, Vec::new(), Stdio::piped())?;
    let stdout = owned.child.as_mut().and_then(Process::take_stdout);
    let console = Tail::of(step("read the console", stdout.ok_or_else(missing))?);
    Ok(Spawned {
        folder,
        stderr,
        console,
    })
}

/// Has firelane-hostd start it, with these files open.
async fn have_started(
    socket: &Path,
    machine: &Machine,
    shown: Shown,
    opened: Vec<(Role, File)>,
    owned: &mut Owned,
) -> Result<Spawned, BootError> {
    let folder = step("make the VMM's folder", owned.run_dir.make_shared())?;
    fits_socket(&folder.join(API_SOCKET))?;
    let origin = shown.origin;
    let mut request = Request::new(machine.shape(), Vmm::Firecracker { origin });
    for (role, file) in opened {
        request.give(role, file);
    }
    let folders = [
        (Role::Folder, Some(&folder)),
        (Role::Snapshot, shown.snapshot.as_ref()),
    ];
    for (role, path) in folders {
        if let Some(path) = path {
            request.give(role, step("open the VMM's folder", File::open(path))?);
        }
    }
    let console = step("make a pipe", request.give_pipe(Role::Stdout))?;
    let mut stderr = step("make a pipe", request.give_stderr())?;
    match owned.have_started(socket, request).await {
        Ok(()) => Ok(Spawned {
            folder,
            stderr,
            console,
        }),
        Err(error) => Err(hosted::explain(error, &mut stderr).await),
    }
}

/// Connects to the API, unless the process ends first.
async fn open(
    mut spawned: Spawned,
    owned: &mut Owned,
    deadline: Instant,
) -> Result<(Api, Spawned), BootError> {
    let socket = spawned.folder.join(API_SOCKET);
    let connected = tokio::select! {
        api = Api::connect(&socket, deadline) => api,
        () = owned.ended() => Err(ApiError::Ended),
    };
    match connected {
        Ok(api) => {
            owned.record_vmm()?;
            Ok((api, spawned))
        }
        Err(error) => {
            let error = BootError::Monitor(error.into());
            let (stderr, console) = (&mut spawned.stderr, &mut spawned.console);
            Err(owned.explain(error, stderr, console).await)
        }
    }
}

/// The user that the VMM becomes, if it does.
pub(super) fn user(firecracker: &Firecracker, owned: &Owned) -> Option<u32> {
    owned
        .user()
        .filter(|_| firecracker.jailing != Jailing::None)
}

fn jail(
    firecracker: &Firecracker,
    machine: &Machine,
    owned: &Owned,
    shown: Shown,
    folder: &Path,
) -> Result<Jail, BootError> {
    let user = user(firecracker, owned);
    let plan = Plan {
        program: &firecracker.program,
        shape: &machine.shape(),
        origin: shown.origin,
        folder,
    };
    let mut jail = plan.jail(Place {
        mountpoint: owned.run_dir.jail_root(),
        user,
        cgroups: owned.record.cgroups.joined_through(),
        kept_descriptor: user.map(|_| KEPT_FD),
    });
    let files = shown.read_only.into_iter().map(|(_, path)| path);
    jail.read_only.extend(files);
    jail.writable.push(folder.to_owned());
    jail.writable.extend(shown.snapshot);
    if let (Jailing::Jailer(jailer), Some(user)) = (&firecracker.jailing, user) {
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
            ("--resource-limit", format!("fsize={}", jail.file_bytes)),
        ];
        let theirs = theirs
            .into_iter()
            .flat_map(|(name, value)| [name.into(), value]);
        let ours = plan.arguments();
        jail.args = theirs.chain(["--".into()]).chain(ours).collect();
        jail.program = jailer.clone();
        jail.mountpoint = root;
        jail.is_jailer = true;
        // It puts the program there itself, makes its own devices, and fails if they are there.
        jail.read_only.retain(|path| *path != firecracker.program);
        jail.devices.clear();
    }
    Ok(jail)
}
