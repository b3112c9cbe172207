//! From a request to a VMM that runs in its jail.
//!
//! ```text
//!   checked ── id taken ── run directory, user, cgroups, on record ── process ── it runs the VMM ── controls ──> running
//! ```
//!
//! Whatever fails, all before it is undone.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use command_fds::{CommandFdExt, FdMapping};
use firelane_host_proto::message::{Code, Refusal, Reply, Role, Start, Vmm};
use firelane_launch::machine::{DiskLimits, Files, Shape, is_id};
use firelane_launch::place::Place;
use firelane_launch::qemu::{CONSOLE_FD, OPENS_FD};
use firelane_launch::rundir::{Record, RunDir};
use firelane_launch::{firecracker, qemu};
use firelane_sys::cgroup::{Bounds, Cgroups};
use firelane_sys::jail::{self, Jail};
use firelane_sys::peer::Peer;
use firelane_sys::process::ProcessId;
use firelane_sys::users::User;

use crate::given::Given;
use crate::refuse::{chain, failed, refuse, refuse_with};
use crate::serve::Shared;
use crate::state;
use crate::stop::{self, Collected, Made};
use crate::table::{Entry, Life, Running, Wanted};

/// Smallest guest, in MiB: less than any kernel takes.
const LEAST_MEMORY_MIB: u32 = 16;
/// How long the jail may take until it has become the VMM.
const RUN_DEADLINE: Duration = Duration::from_secs(20);
/// The number of the descriptor that the VMM's keeper holds.
const KEPT_FD: i32 = OPENS_FD + 1;
/// Those of the files, from here on.
const FIRST_FILE_FD: i32 = KEPT_FD + 1;
const _: () = assert!(
    OPENS_FD > CONSOLE_FD && OPENS_FD > firecracker::STDERR_FD,
    "the jail closes what is above the VMM's"
);

/// Starts a VMM. What goes to the client is at its end when nothing of the VMM is left.
pub(crate) fn start(
    shared: &Arc<Shared>,
    peer: &Peer,
    lease: u64,
    start: &Start,
    descriptors: Vec<OwnedFd>,
) -> Result<(Reply, OwnedFd), Refusal> {
    let program = check(shared, start)?;
    let given = Given::sort(&start.vmm, peer.uid, &start.given, descriptors)?;
    let id = &start.shape.id;
    let entry = shared.table.reserve(Wanted {
        id,
        uid: peer.uid,
        lease,
        vmm: start.vmm.name(),
        memory_mib: start.shape.memory_mib,
    })?;
    let started =
        make(shared, start).and_then(|made| run(shared, &entry, (start, program), given, made));
    if started.is_err() {
        shared.table.forget(&entry);
    }
    started
}

/// Refuses what cannot be; else, which program is started.
fn check<'a>(shared: &'a Shared, start: &Start) -> Result<&'a Path, Refusal> {
    let (shape, config) = (&start.shape, &shared.config);
    if !is_id(&shape.id) {
        let shown: String = shape.id.escape_debug().take(80).collect();
        let remedy = "use letters, digits and hyphens, 64 at most";
        return Err(refuse_with(
            Code::BadId,
            format!("'{shown}' is no id"),
            remedy,
        ));
    }
    let within = |name: &str, value: u32, least: u32, most: u32| {
        if (least..=most).contains(&value) {
            return Ok(());
        }
        let cause = format!("{name} is {value}, and has to be from {least} to {most}");
        Err(refuse(Code::OutOfBounds, cause))
    };
    within(
        "memory_mib",
        shape.memory_mib,
        LEAST_MEMORY_MIB,
        config.memory_mib,
    )?;
    within("vcpus", shape.vcpus, 1, config.vcpus)?;
    let (name, option) = match &start.vmm {
        Vmm::Qemu { .. } => ("QEMU", "--qemu"),
        Vmm::Firecracker { .. } => ("Firecracker", "--firecracker"),
    };
    let cause = match program(shared, &start.vmm) {
        Some(program) if program.is_file() => return Ok(program),
        Some(program) => format!("{} is not there", program.display()),
        None => format!("this host has no {name}"),
    };
    let remedy = format!("have root install {name}, or name it: firelane-hostd {option}");
    Err(refuse_with(Code::NoProgram, cause, remedy))
}

/// What is started: root says so, and nobody else.
fn program<'a>(shared: &'a Shared, vmm: &Vmm) -> Option<&'a Path> {
    match vmm {
        Vmm::Qemu { .. } => Some(&shared.config.qemu),
        Vmm::Firecracker { .. } => shared.config.firecracker.as_deref(),
    }
}

fn bounds(vmm: &Vmm, shape: &Shape) -> Bounds {
    match vmm {
        Vmm::Qemu { .. } => qemu::Plan::bounds(shape),
        Vmm::Firecracker { .. } => firecracker::Plan::bounds(shape),
    }
}

/// Makes what it has on the host, and puts that on record.
fn make(shared: &Shared, start: &Start) -> Result<Made, Refusal> {
    let id = &start.shape.id;
    let run_dir = RunDir::make(&shared.config.run_base, id).map_err(|error| {
        // Another process of root's, which runs microVMs by itself, may have it.
        let code = match shared.config.run_base.join(id).exists() {
            true => Code::IdTaken,
            false => Code::Failed,
        };
        refuse(
            code,
            format!("cannot make the run directory: {}", chain(&error)),
        )
    })?;
    let user = match User::reserve(id) {
        Ok(user) => user,
        Err(error) => {
            let refusal = failed("reserve a user")(error);
            return Err(match run_dir.remove() {
                Ok(()) => refusal,
                Err(error) => also(refusal, &error),
            });
        }
    };
    let cgroups = Cgroups::make(id, &bounds(&start.vmm, &start.shape));
    let made = Made {
        run_dir,
        cgroups,
        user,
    };
    match record(&made, None) {
        Ok(()) => Ok(made),
        Err(error) => {
            let refusal = failed("record the microVM")(error);
            Err(undone(refusal, made.remove()))
        }
    }
}

fn record(made: &Made, vmm: Option<ProcessId>) -> io::Result<()> {
    let cgroups = made.cgroups.clone();
    made.run_dir.record(&Record {
        vmm,
        cgroups,
        hosted: false,
    })
}

fn run(
    shared: &Arc<Shared>,
    entry: &Arc<Entry>,
    (start, program): (&Start, &Path),
    given: Given,
    made: Made,
) -> Result<(Reply, OwnedFd), Refusal> {
    let spawned = launch(shared, start, program, given, &made);
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => return Err(undone(failed("start the VMM")(error), made.remove())),
    };
    let settled = settle(program, &mut child, &made);
    let settled =
        settled.and_then(|vmm| Ok((vmm, UnixStream::pair().map_err(failed("make a socket"))?)));
    let (vmm, (life, watched)) = match settled {
        Ok(settled) => settled,
        Err(refusal) => return Err(undone(refusal, stop::give_up(child, made))),
    };
    let running = Running {
        vmm,
        user: made.user.as_ref().map(User::number),
        cgroups: made.cgroups.clone(),
    };
    let reply = Reply::Started {
        pid: vmm.pid,
        cgroups: running.cgroups.clone(),
    };
    entry.set(Life::Running(running));
    let collected = Collected {
        child,
        vmm,
        made,
        life,
    };
    stop::collect(shared, entry, collected).map_err(failed("watch the VMM"))?;
    Ok((reply, watched.into()))
}

/// Starts this program again, to become the VMM.
fn launch(
    shared: &Shared,
    start: &Start,
    program: &Path,
    given: Given,
    made: &Made,
) -> io::Result<Child> {
    let mut inherited = given.sockets;
    if let Some(user) = &made.user {
        inherited.push((user.hold()?, KEPT_FD));
    }
    let mut jail = describe(start, program, made);
    for (descriptor, (role, file)) in (FIRST_FILE_FD..).zip(given.files) {
        jail.given.push(jail::Given {
            descriptor,
            path: role.seen(),
            folder: role.is_folder(),
        });
        inherited.push((file, descriptor));
    }
    let mut command = Command::new(&shared.program);
    command
        .arg(jail::ARGUMENT)
        .arg(serde_json::to_string(&jail).map_err(io::Error::other)?)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(given.stdout.map_or_else(Stdio::null, Stdio::from))
        .stderr(Stdio::from(given.stderr));
    let mappings = inherited
        .into_iter()
        .map(|(parent_fd, child_fd)| FdMapping {
            parent_fd,
            child_fd,
        });
    let mapped = command.fd_mappings(mappings.collect());
    mapped.map_err(io::Error::other)?;
    shared.spawner.spawn(command)
}

fn describe(start: &Start, program: &Path, made: &Made) -> Jail {
    let place = Place {
        mountpoint: made.run_dir.jail_root(),
        user: made.user.as_ref().map(User::number),
        cgroups: made.cgroups.joined_through(),
        kept_descriptor: made.user.is_some().then_some(KEPT_FD),
    };
    match start.vmm {
        Vmm::Qemu {
            origin,
            acceleration,
            tsc_khz,
        } => {
            let has = |role: Role| start.given.contains(&role).then(|| role.seen());
            let files = Files {
                kernel: Role::Kernel.seen(),
                initrd: has(Role::Initrd),
                rootfs: has(Role::Rootfs),
                disk: DiskLimits::DEFAULT,
            };
            let plan = qemu::Plan {
                program,
                shape: &start.shape,
                files: &files,
                origin,
                acceleration,
                tsc_khz,
                // Who may not make a tap has none to give.
                network: None,
            };
            plan.jail(place)
        }
        Vmm::Firecracker { origin } => {
            let plan = firecracker::Plan {
                program,
                shape: &start.shape,
                origin,
                folder: &Role::Folder.seen(),
            };
            // Its folders are the client's, and closed to all others.
            Jail {
                shares: true,
                ..plan.jail(place)
            }
        }
    }
}

/// Waits until the process has become the VMM, and makes sure that it is confined.
fn settle(program: &Path, child: &mut Child, made: &Made) -> Result<ProcessId, Refusal> {
    let pid = became(child, program)?;
    let vmm = ProcessId::of(pid).map_err(failed("find the VMM"))?;
    record(made, Some(vmm)).map_err(failed("record the VMM"))?;
    let controls = state::controls(pid, &made.cgroups).map_err(failed("read its controls"))?;
    state::confined(&controls)?;
    Ok(vmm)
}

/// The number of the process that runs `program`, once there is one: ours, or the one that it keeps.
fn became(child: &mut Child, program: &Path) -> Result<u32, Refusal> {
    let inode = |path: &Path| {
        let found = std::fs::metadata(path)?;
        io::Result::Ok((found.dev(), found.ino()))
    };
    let wanted = inode(program).map_err(failed("look at the VMM's program"))?;
    let deadline = Instant::now() + RUN_DEADLINE;
    loop {
        let ended = child.try_wait().map_err(failed("wait for the VMM"))?;
        if let Some(status) = ended {
            let remedy = "see what it wrote to its stderr";
            return Err(refuse_with(Code::Died, status.to_string(), remedy));
        }
        let pid = jail::vmm_of(child.id()).unwrap_or(child.id());
        let runs = inode(Path::new(&format!("/proc/{pid}/exe")));
        if runs.is_ok_and(|runs| runs == wanted) {
            return Ok(pid);
        }
        if Instant::now() > deadline {
            let cause = "the jail was not ready in time: the host may be overloaded";
            return Err(refuse(Code::Failed, cause));
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// A refusal after which things were removed, and what came of that.
fn undone(refusal: Refusal, removed: io::Result<()>) -> Refusal {
    match removed {
        Ok(()) => refusal,
        Err(error) => also(refusal, &error),
    }
}

fn also(refusal: Refusal, error: &io::Error) -> Refusal {
    Refusal {
        cause: format!(
            "{}; something is left to the next sweep: {error}",
            refusal.cause
        ),
        ..refusal
    }
}
