//! The program that a VMM is started through.
//!
//! It runs as a process of its own, so that it may take its time and allocate: it gives up rights
//! one by one and then becomes the VMM, which keeps its pid.
//!
//! ```text
//!   cgroups joined ─ namespaces ─ minimal root ─ limits ─ user ─ capabilities ─ no new privileges ─ filter ─ opens ─ exec
//! ```
//!
//! With a PID namespace of its own, the VMM is a child of that process, which stays as its keeper: see
//! `keeper.rs`. Firecracker's jailer is started in the same way, as root and with all it will need below
//! its chroot; it gives up the rest of the rights itself.
//!
//! As root everything is done; as an ordinary user what a user namespace allows. What could not be
//! done is visible in `/proc/<pid>` of the VMM, where [`Controls::of`] reads it.

mod controls;
mod filter;
mod groups;
mod handed;
mod keeper;
mod root;

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::process::{Resource, Rlimit, Signal};
use rustix::thread::UnshareFlags;
use serde::{Deserialize, Serialize};

pub use controls::{Control, Controls, State};
pub use handed::Opens;
pub use keeper::{kept_by, vmm_of};

/// First argument of a program that shall act as the jail; the second is the [`Jail`] as JSON.
pub const ARGUMENT: &str = "__jail";

/// What to become, and with which rights.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jail {
    /// The VMM's program, absolute.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// User and group to become; only root can.
    pub user: Option<u32>,
    /// Empty folder over which the minimal root is put together.
    pub mountpoint: PathBuf,
    /// The program is a jailer: it makes the mount point its root and gives up its rights itself, so
    /// that it starts as root, outside of the minimal root.
    #[serde(default)]
    pub is_jailer: bool,
    /// Whether the VMM gets a PID namespace, if that is possible.
    #[serde(default)]
    pub pid_namespace: bool,
    /// Files and folders to be found in the minimal root under the same path, read-only.
    pub read_only: Vec<PathBuf>,
    /// Folders to be found there under the same path, writable: for sockets, and for what the VMM
    /// leaves behind.
    #[serde(default)]
    pub writable: Vec<PathBuf>,
    /// Files and folders to be found there that are given by a descriptor; only root can.
    #[serde(default)]
    pub given: Vec<Given>,
    /// Devices to be found there, as far as the host has them.
    pub devices: Vec<PathBuf>,
    /// Files to join its cgroups through: see [`Cgroups::joined_through`](crate::cgroup::Cgroups::joined_through).
    pub cgroups: Vec<PathBuf>,
    /// Open files at most.
    pub open_files: u64,
    /// Size of a file that the VMM writes at most, in bytes.
    pub file_bytes: u64,
    /// Whether its files and sockets are open to whoever can reach their folder: the folder's owner is
    /// another user, and has closed the way there to everybody else.
    #[serde(default)]
    pub shares: bool,
    /// Descriptors up to this number are the VMM's; all others are closed.
    pub last_descriptor: i32,
    /// Socket over which the owner learns of opens for reading and writing, and answers them; see
    /// [`Opens`]. Its number is above `last_descriptor`.
    pub opens_channel: Option<i32>,
    /// Descriptor that stays open until the VMM was collected, in its keeper if it has one: what it locks
    /// is locked for as long. Its number is above `last_descriptor`.
    #[serde(default)]
    pub kept_descriptor: Option<i32>,
    /// The process that owns the VMM; if it is gone already, there is nothing to do.
    pub owner: u32,
}

/// A file or folder of somebody else, who has opened it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    /// It is a folder, in which the VMM may write; else a file, which it may read.
    #[serde(default)]
    pub folder: bool,
    /// Under which number it is inherited; above `last_descriptor`.
    pub descriptor: i32,
    /// Under which path the VMM finds it.
    pub path: PathBuf,
}

/// Why the jail could not be entered.
#[derive(Debug, thiserror::Error)]
pub enum JailError {
    /// The argument is not a jail.
    #[error("the jail's description is malformed")]
    Malformed(#[from] serde_json::Error),
    /// A step failed.
    #[error("cannot {step}")]
    Step {
        /// Which one.
        step: String,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
    /// The owner is gone.
    #[error("the process that owns this microVM is gone")]
    Orphan,
}

fn step<T, E: Into<io::Error>>(name: &str, result: Result<T, E>) -> Result<T, JailError> {
    result.map_err(|source| JailError::Step {
        step: name.into(),
        source: source.into(),
    })
}

/// Acts as the jail if the program was started as one; else does nothing.
///
/// Call it first in `main`, while there is one thread. On success it does not return.
///
/// # Errors
/// [`JailError`]; the VMM was not started.
pub fn enter_if_asked() -> Result<(), JailError> {
    let mut args = std::env::args().skip(1);
    match (args.next().as_deref(), args.next()) {
        (Some(ARGUMENT), Some(description)) => {
            let jail: Jail = serde_json::from_str(&description)?;
            Err(jail.enter())
        }
        _ => Ok(()),
    }
}

impl Jail {
    /// Gives up rights and becomes the program; returns only if that failed.
    fn enter(&self) -> JailError {
        match self.confine() {
            Ok(()) => JailError::Step {
                step: format!("start {}", self.program.display()),
                source: self.exec(),
            },
            Err(error) => error,
        }
    }

    fn confine(&self) -> Result<(), JailError> {
        die_with(self.owner, Signal::KILL)?;
        // Folders of the jail's root must be open to the VMM's user, whatever our user prefers.
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
        // A terminal's Ctrl-C is for the owner, who then ends the microVM in order.
        step("start a session", rustix::process::setsid())?;
        // Found out here: inside the jail's root there is no /proc.
        let user = self.user.filter(|user| mapped(*user));
        let allowed = allowed()?;
        // Of the mounts that they are on now, which are not ours any more in namespaces of our own.
        let given = root::take(&self.given, allowed)?;
        // An ordinary user has no right to one before it has a user namespace, and the keeper stays outside.
        let kept = allowed && self.pid_namespace && rustix::process::geteuid().is_root();
        match kept {
            true => keeper::stay_behind(self.owner, &self.cgroups, self.kept_descriptor)?,
            false => groups::join(&self.cgroups)?,
        }
        if allowed {
            unshare_all()?;
            root::assemble(self, user, &given)?;
        }
        // Placed; below, descriptors are closed by their numbers, whoever owns them.
        drop(given);
        self.limit()?;
        if !self.is_jailer {
            if allowed {
                root::enter(&self.mountpoint)?;
            }
            if let Some(user) = user {
                become_user(user)?;
            }
            drop_capabilities()?;
        }
        step(
            "forbid new privileges",
            rustix::thread::set_no_new_privs(true),
        )?;
        // A change of user forgets this setting.
        match kept {
            true => step("ask to end with the keeper", keeper::die_with_parent())?,
            false => die_with(self.owner, Signal::KILL)?,
        }
        if !self.is_jailer {
            step("filter system calls", filter::confine())?;
        }
        if self.shares {
            rustix::process::umask(rustix::fs::Mode::empty());
        }
        self.stop_opens()?;
        self.close_others()
    }

    #[expect(unsafe_code, reason = "a descriptor is named by its number")]
    fn stop_opens(&self) -> Result<(), JailError> {
        let Some(channel) = self.opens_channel else {
            return Ok(());
        };
        // SAFETY: the owner put the descriptor there, and it is closed only after this.
        let channel = unsafe { BorrowedFd::borrow_raw(channel) };
        step("let the owner answer opens", handed::stop_opens(channel))
    }

    fn limit(&self) -> Result<(), JailError> {
        for (name, resource, value) in [
            ("open files", Resource::Nofile, self.open_files),
            ("core size", Resource::Core, 0),
            ("message queues", Resource::Msgqueue, 0),
            ("file size", Resource::Fsize, self.file_bytes),
        ] {
            let limit = Rlimit {
                current: Some(value),
                maximum: Some(value),
            };
            step(
                &format!("limit {name}"),
                rustix::process::setrlimit(resource, limit),
            )?;
        }
        Ok(())
    }

    #[expect(unsafe_code, reason = "descriptors are closed that no value owns")]
    fn close_others(&self) -> Result<(), JailError> {
        let first = libc::c_uint::try_from(self.last_descriptor + 1).unwrap_or(3);
        // SAFETY: nothing in this process uses those descriptors again: it is about to exec.
        let result = unsafe { libc::close_range(first, libc::c_uint::MAX, 0) };
        let result = if result == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        };
        step("close other descriptors", result)
    }

    fn exec(&self) -> io::Error {
        use std::os::unix::process::CommandExt;
        std::process::Command::new(&self.program)
            .args(&self.args)
            .env_clear()
            .exec()
    }
}

/// Asks for `signal` when the owner, our parent, ends.
fn die_with(owner: u32, signal: Signal) -> Result<(), JailError> {
    let set = rustix::process::set_parent_process_death_signal(Some(signal));
    step("ask to end with the owner", set)?;
    let parent = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
    // An owner that died before we asked sends no signal.
    if parent.unsigned_abs() == owner {
        Ok(())
    } else {
        Err(JailError::Orphan)
    }
}

/// Own mount, network, IPC and host-name namespaces; for an ordinary user inside a user namespace,
/// in which it is nobody else.
fn unshare_all() -> Result<(), JailError> {
    let flags =
        UnshareFlags::NEWNS | UnshareFlags::NEWNET | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS;
    if rustix::process::geteuid().is_root() {
        return step("make namespaces", unshare(flags));
    }
    let (uid, gid) = (
        rustix::process::getuid().as_raw(),
        rustix::process::getgid().as_raw(),
    );
    step("make namespaces", unshare(flags | UnshareFlags::NEWUSER))?;
    step(
        "map the user",
        fs::write("/proc/self/uid_map", format!("{uid} {uid} 1")),
    )?;
    step("forbid groups", fs::write("/proc/self/setgroups", "deny"))?;
    step(
        "map the group",
        fs::write("/proc/self/gid_map", format!("{gid} {gid} 1")),
    )
}

/// Whether this host lets us have namespaces and mount in them: some let nobody but root, some let
/// users make them but do nothing inside, and a container's root may lack the capability. A child
/// tries, because what has been unshared cannot be joined again. Whatever else goes wrong, a want of memory or of
/// processes, is an error: another time it would have been possible.
#[expect(unsafe_code, reason = "a child process that shares nothing tries it")]
fn allowed() -> Result<bool, JailError> {
    const TRY: &str = "try to make namespaces";
    // SAFETY: the jail has one thread, so the child may do whatever the parent may.
    let pid = unsafe { libc::fork() };
    match pid {
        -1 => return step(TRY, Err(io::Error::last_os_error())),
        0 => {
            let tried = unshare_all().and_then(|()| root::try_mount());
            let code = match tried {
                Ok(()) => 0,
                Err(error) => tried_in_vain(&error),
            };
            // SAFETY: ends the child without running what belongs to the parent.
            unsafe { libc::_exit(code) };
        }
        _ => {}
    }
    let mut status = 0;
    // SAFETY: waits for the child that was just made; without one it fails.
    let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    if waited != pid {
        return step(TRY, Err(io::Error::last_os_error()));
    }
    match libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status)) {
        Some(0) => Ok(true),
        Some(REFUSED) => Ok(false),
        Some(errno) => step(TRY, Err(io::Error::from_raw_os_error(errno))),
        None => step(TRY, Err(io::Error::other("whoever tried was killed"))),
    }
}

/// Exit code of a trial that the host does not allow. An error number otherwise, none of which is as high.
const REFUSED: i32 = 255;

fn tried_in_vain(error: &JailError) -> i32 {
    let JailError::Step { source, .. } = error else {
        return libc::EIO;
    };
    match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES | libc::ENOSYS | libc::EINVAL) => REFUSED,
        // The limit may be reached, or be none at all, which is how some hosts forbid namespaces.
        Some(libc::ENOSPC) if none_may_be_made() => REFUSED,
        Some(errno) => errno,
        None => libc::EIO,
    }
}

/// Source: Linux, `Documentation/admin-guide/sysctl/user.rst`.
fn none_may_be_made() -> bool {
    ["user", "mnt", "net", "ipc", "uts"].iter().any(|kind| {
        let limit = format!("/proc/sys/user/max_{kind}_namespaces");
        fs::read_to_string(limit).is_ok_and(|limit| limit.trim() == "0")
    })
}

/// Whether this user number means anything here: a container may have fewer.
fn mapped(user: u32) -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.lines().any(|line| {
        let mut fields = line.split_ascii_whitespace().map(str::parse::<u64>);
        let (first, count) = (fields.next(), fields.nth(1));
        matches!((first, count), (Some(Ok(first)), Some(Ok(count)))
            if (first..first + count).contains(&u64::from(user)))
    })
}

#[expect(
    unsafe_code,
    reason = "unsharing affects descriptors and paths of the whole process"
)]
fn unshare(flags: UnshareFlags) -> rustix::io::Result<()> {
    // SAFETY: the jail has one thread, and the flags do not include the descriptor table.
    unsafe { rustix::thread::unshare_unsafe(flags) }
}

fn become_user(user: u32) -> Result<(), JailError> {
    let (uid, gid) = (
        rustix::process::Uid::from_raw(user),
        rustix::process::Gid::from_raw(user),
    );
    step("drop groups", rustix::thread::set_thread_groups(&[]))?;
    step(
        "change group",
        rustix::thread::set_thread_res_gid(gid, gid, gid),
    )?;
    step(
        "change user",
        rustix::thread::set_thread_res_uid(uid, uid, uid),
    )
}

/// Empties the bounding set where that is allowed: with it empty, no exec can gain anything.
#[expect(
    unsafe_code,
    reason = "the capability calls take plain numbers and structures"
)]
fn drop_capabilities() -> Result<(), JailError> {
    // After a change of user the capabilities are gone and this is refused, which is as good.
    for capability in 0..64 {
        // SAFETY: this prctl takes plain numbers.
        unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability as libc::c_ulong, 0, 0, 0) };
    }
    let none = rustix::thread::CapabilitySets {
        effective: rustix::thread::CapabilitySet::empty(),
        permitted: rustix::thread::CapabilitySet::empty(),
        inheritable: rustix::thread::CapabilitySet::empty(),
    };
    step(
        "drop capabilities",
        rustix::thread::set_capabilities(None, none),
    )
}

/// A path as the kernel takes it.
fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_that_lacks_something_for_now_is_no_refusal() {
        let code = |errno| {
            tried_in_vain(&JailError::Step {
                step: "try".into(),
                source: io::Error::from_raw_os_error(errno),
            })
        };
        assert_eq!([libc::EPERM, libc::ENOSYS].map(code), [REFUSED; 2]);
        assert_eq!(code(libc::ENOMEM), libc::ENOMEM);
        if !none_may_be_made() {
            assert_eq!(code(libc::ENOSPC), libc::ENOSPC, "the limit was reached");
        }
        assert_eq!(tried_in_vain(&JailError::Orphan), libc::EIO);
    }
}
