//! Starts a program with nothing but what it needs: its own user, session, cgroup and limits.

#![expect(
    unsafe_code,
    reason = "the child must give up its rights between fork and exec"
)]

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::{Arc, PoisonError};

use firelane_guest_proto::message::{PtySize, Refused, RefusedCode};
use rustix::fs::OFlags;
use rustix::process::{Pid, Resource, Rlimit};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use super::plan::Plan;
use super::{USER_ID, refused};
use crate::Guest;
use crate::cgroup::{Bounds, Cgroup};
use crate::reaper::Watch;
use crate::seccomp::Filter;
use crate::wake::Wake;
use crate::zygote::{self, Order};

/// Processes and threads of one exec, unless the request says otherwise.
const DEFAULT_PROCESSES: u32 = 512;
/// Open files of one process.
const OPEN_FILES: u64 = 4096;
/// Size of the pipes that programs write to, in bytes: the fewer switches between the program and
/// us, the better.
const OUTPUT_PIPE_BYTES: usize = 256 << 10;
/// Highest capability number of Linux 6.1 (`CAP_CHECKPOINT_RESTORE`).
const LAST_CAPABILITY: libc::c_ulong = 40;

/// A program that was started.
pub(crate) struct Running {
    pub(crate) pid: Pid,
    pub(crate) watch: Arc<Watch>,
    pub(crate) group: Cgroup,
    /// Our end of its standard input; of its terminal if it has one.
    pub(crate) stdin: Option<OwnedFd>,
    /// Our ends of what it writes; one if it has a terminal.
    pub(crate) stdout: Option<OwnedFd>,
    pub(crate) stderr: Option<OwnedFd>,
    /// Its terminal, if it has one.
    pub(crate) terminal: Option<OwnedFd>,
}

/// The program's ends.
pub(crate) struct Theirs {
    pub(crate) stdin: OwnedFd,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

pub(crate) struct Ours {
    stdin: OwnedFd,
    stdout: OwnedFd,
    stderr: Option<OwnedFd>,
    terminal: Option<OwnedFd>,
}

impl Running {
    pub(crate) fn start(
        guest: &Arc<Guest>,
        plan: &Plan,
        number: u64,
        wake: &Arc<Wake>,
    ) -> Result<Running, Refused> {
        let exhausted = |error: io::Error| {
            refused(
                RefusedCode::Exhausted,
                format!("cannot start the program: {error}"),
            )
        };
        let bounds = bounds(guest, plan);
        let order = order(plan);
        if let Some(order) = &order
            && let Some(unparked) = guest.zygotes.unpark(order, bounds, wake)
        {
            return Ok(unparked);
        }
        let group = group(guest, number, bounds).map_err(exhausted)?;
        let started = start_in(guest, plan, order.as_ref(), &group, wake);
        match started {
            Ok((ours, pid, watch)) => Ok(Running::new(ours, pid, watch, group)),
            Err(error) => {
                // The group is empty: its only process never came to be.
                let _ = group.remove();
                Err(match error.kind() {
                    io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => {
                        let message = format!("cannot start {}: {error}", plan.program.display());
                        refused(RefusedCode::NoInterpreter, message)
                    }
                    _ => exhausted(error),
                })
            }
        }
    }

    pub(crate) fn new(ours: Ours, pid: Pid, watch: Arc<Watch>, group: Cgroup) -> Running {
        Running {
            pid,
            watch,
            group,
            stdin: Some(ours.stdin),
            stdout: Some(ours.stdout),
            stderr: ours.stderr,
            terminal: ours.terminal,
        }
    }
}

/// A cgroup for one exec: the one that was made before, or a fresh one.
fn group(guest: &Guest, number: u64, bounds: Bounds) -> io::Result<Cgroup> {
    let spare = guest.spare_group.lock();
    let spare = spare.unwrap_or_else(PoisonError::into_inner).take();
    let Some(mut group) = spare else {
        return guest.execs.child(&format!("exec-{number}"), bounds);
    };
    if let Err(error) = group.bound(bounds) {
        // Empty, and of no use.
        let _ = group.remove();
        return Err(error);
    }
    Ok(group)
}

/// Makes the cgroup of an exec to come, as most of them are bounded.
pub(crate) fn prepare_group(guest: &Guest) -> io::Result<()> {
    let spare = guest.spare_group.lock();
    let mut spare = spare.unwrap_or_else(PoisonError::into_inner);
    if spare.is_none() {
        *spare = Some(guest.execs.child("exec-0", usual_bounds(guest))?);
    }
    Ok(())
}

/// Those of an exec whose request has none.
pub(crate) fn usual_bounds(guest: &Guest) -> Bounds {
    Bounds {
        memory_bytes: guest.execs.bounds().memory_bytes,
        processes: DEFAULT_PROCESSES,
    }
}

fn bounds(guest: &Guest, plan: &Plan) -> Bounds {
    let usual = usual_bounds(guest);
    Bounds {
        memory_bytes: match plan.limits.memory_bytes {
            0 => usual.memory_bytes,
            bytes => bytes.min(usual.memory_bytes),
        },
        processes: match plan.limits.processes {
            0 => usual.processes,
            processes => processes,
        },
    }
}

fn start_in(
    guest: &Arc<Guest>,
    plan: &Plan,
    order: Option<&Order<'_>>,
    group: &Cgroup,
    wake: &Arc<Wake>,
) -> io::Result<(Ours, Pid, Arc<Watch>)> {
    let (ours, theirs) = match plan.pty {
        Some(size) => terminal(size)?,
        None => pipes()?,
    };
    let child = zygote::Child {
        guest,
        group,
        wake,
        streams: [&theirs.stdin, &theirs.stdout, &theirs.stderr],
    };
    if let Some(order) = order
        && let Some(forked) = guest.zygotes.fork(order, &child)
    {
        return Ok((ours, forked.pid, forked.watch));
    }
    let mut command = Command::new(&plan.program);
    command
        .args(&plan.args)
        .env_clear()
        .envs(&plan.env)
        .stdin(Stdio::from(theirs.stdin))
        .stdout(Stdio::from(theirs.stdout))
        .stderr(Stdio::from(theirs.stderr));
    let procs = group.procs()?;
    let cwd = plan.cwd.try_clone()?;
    let has_terminal = plan.pty.is_some();
    let filter = Filter::of(guest.tier, plan.lang);
    // SAFETY: between fork and exec only async-signal-safe work is done: system calls on
    // descriptors and constants prepared above, no allocation and no lock.
    unsafe {
        command.pre_exec(move || confine(&procs, &cwd, has_terminal, filter));
    }
    let (child, watch) = guest.reaper.spawn(&mut command, Arc::clone(wake))?;
    let pid = Pid::from_child(&child);
    Ok((ours, pid, watch))
}

/// What a zygote would be asked to do, if it may.
fn order(plan: &Plan) -> Option<Order<'_>> {
    let source = plan.source.as_ref()?;
    Some(Order {
        lang: source.lang,
        folder: &plan.folder,
        file: &source.file,
        args: &source.args,
        env: &plan.env,
    })
}

/// In the child: gives up everything, in the one order that works.
pub(crate) fn confine(
    procs: &std::fs::File,
    cwd: &OwnedFd,
    has_terminal: bool,
    filter: Filter,
) -> io::Result<()> {
    rustix::io::write(procs, b"0")?;
    raise_oom_score()?;
    rustix::process::setsid()?;
    if has_terminal {
        rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
    }
    rustix::process::fchdir(cwd)?;
    limit(Resource::Nofile, OPEN_FILES)?;
    limit(Resource::Core, 0)?;
    limit(Resource::Memlock, 64 << 10)?;
    limit(Resource::Msgqueue, 0)?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    for capability in 0..=LAST_CAPABILITY {
        // SAFETY: this prctl takes plain numbers.
        let result = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        // A kernel with fewer capabilities has nothing to drop.
        if result != 0 && io::Error::last_os_error().raw_os_error() != Some(libc::EINVAL) {
            return Err(io::Error::last_os_error());
        }
    }
    rustix::thread::set_thread_groups(&[])?;
    let (uid, gid) = (
        rustix::process::Uid::from_raw(USER_ID),
        rustix::process::Gid::from_raw(USER_ID),
    );
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    rustix::thread::set_no_new_privs(true)?;
    // Last: it allows less than what was done here.
    filter.install()
}

/// The program goes first when memory runs out; it inherited the guest-runner's protection.
fn raise_oom_score() -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::open(
        c"/proc/self/oom_score_adj",
        flags,
        rustix::fs::Mode::empty(),
    )?;
    rustix::io::write(&file, b"500")?;
    Ok(())
}

fn limit(resource: Resource, value: u64) -> io::Result<()> {
    let limit = Rlimit {
        current: Some(value),
        maximum: Some(value),
    };
    Ok(rustix::process::setrlimit(resource, limit)?)
}

/// Fresh pipes for the standard streams of a program.
pub(crate) fn pipes() -> io::Result<(Ours, Theirs)> {
    let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
    let (stdin_read, stdin_write) = pipe()?;
    let (stdout_read, stdout_write) = pipe()?;
    let (stderr_read, stderr_write) = pipe()?;
    for ours in [&stdin_write, &stdout_read, &stderr_read] {
        no_block(ours)?;
    }
    for output in [&stdout_read, &stderr_read] {
        rustix::pipe::fcntl_setpipe_size(output, OUTPUT_PIPE_BYTES)?;
    }
    let ours = Ours {
        stdin: stdin_write,
        stdout: stdout_read,
        stderr: Some(stderr_read),
        terminal: None,
    };
    Ok((
        ours,
        Theirs {
            stdin: stdin_read,
            stdout: stdout_write,
            stderr: stderr_write,
        },
    ))
}

fn terminal(size: PtySize) -> io::Result<(Ours, Theirs)> {
    let master =
        rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    rustix::pty::grantpt(&master)?;
    rustix::pty::unlockpt(&master)?;
    resize(master.as_fd(), size)?;
    let name = rustix::pty::ptsname(&master, Vec::new())?;
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let slave = rustix::fs::open(name.as_c_str(), flags, rustix::fs::Mode::empty())?;
    rustix::fs::fchown(&slave, Some(rustix::process::Uid::from_raw(USER_ID)), None)?;
    no_block(&master)?;
    let theirs = Theirs {
        stdin: slave.try_clone()?,
        stdout: slave.try_clone()?,
        stderr: slave,
    };
    Ok((
        Ours {
            stdin: master.try_clone()?,
            stdout: master.try_clone()?,
            stderr: None,
            terminal: Some(master),
        },
        theirs,
    ))
}

/// Tells the terminal, and through it the program, its size.
pub(crate) fn resize(master: std::os::fd::BorrowedFd<'_>, size: PtySize) -> io::Result<()> {
    let size = Winsize {
        ws_row: size.rows,
        ws_col: size.cols,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    Ok(rustix::termios::tcsetwinsize(master, size)?)
}

fn no_block(fd: &OwnedFd) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(fd)?;
    Ok(rustix::fs::fcntl_setfl(fd, flags | OFlags::NONBLOCK)?)
}
