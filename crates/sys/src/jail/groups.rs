//! How a VMM gets into its cgroups without waiting.
//!
//! Before it moves a process, the kernel stops all others from being made or ending, and waits for a grace
//! period of some milliseconds to do so. It does not where a thread moves itself alone, which `tasks` of
//! version 1 allows, nor where a process is born in its group, which version 2 offers.
//!
//! Sources: Linux 6.18, `kernel/cgroup/cgroup.c`, `cgroup_procs_write_start`; clone(2), `CLONE_INTO_CGROUP`
//! (Linux 5.7).

#![expect(unsafe_code, reason = "a process is made in its cgroup")]

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use super::{JailError, step};

/// Last part of the paths that the groups of version 2 are joined through.
const UNIFIED: &str = "cgroup.procs";

/// Source: Linux, `include/uapi/linux/sched.h`; the constant of libc is too narrow.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Joins them all; the process has one thread.
pub(super) fn join(files: &[PathBuf]) -> Result<(), JailError> {
    for file in files {
        step(&format!("join {}", file.display()), fs::write(file, "0"))?;
    }
    Ok(())
}

/// Forks. The child is in all groups; the parent, which does no work, need not be in any.
pub(super) fn fork_into(files: &[PathBuf]) -> Result<libc::pid_t, JailError> {
    let (born, joined): (Vec<_>, Vec<_>) =
        files.iter().cloned().partition(|f| f.ends_with(UNIFIED));
    let child = match born.as_slice() {
        [only] => clone_into(only.parent().unwrap_or(Path::new("/"))),
        _ => Err(io::Error::from(io::ErrorKind::Unsupported)),
    };
    let (child, left) = match child {
        Ok(child) => (child, joined),
        // An older kernel, or a filter around us: the child moves as any process does.
        Err(_) => (step("make the VMM's process", fork())?, files.to_vec()),
    };
    if child == 0 {
        join(&left)?;
    }
    Ok(child)
}

fn fork() -> io::Result<libc::pid_t> {
    // SAFETY: the jail has one thread, so the child may do whatever the parent may.
    told(libc::c_long::from(unsafe { libc::fork() }))
}

/// Forks into the group that the folder is.
fn clone_into(folder: &Path) -> io::Result<libc::pid_t> {
    let folder = File::open(folder)?;
    // SAFETY: the arguments are plain data; all zeroes asks for nothing.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = CLONE_INTO_CGROUP;
    arguments.exit_signal = libc::SIGCHLD as u64;
    arguments.cgroup = u64::try_from(folder.as_raw_fd()).map_err(io::Error::other)?;
    // SAFETY: the arguments live across the call, and the size is theirs. Without a stack of its own the
    // child goes on as after a fork; the jail has one thread, so no lock is held that nobody would release.
    told(unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw const arguments,
            size_of::<libc::clone_args>(),
        )
    })
}

fn told(result: libc::c_long) -> io::Result<libc::pid_t> {
    match result {
        -1 => Err(io::Error::last_os_error()),
        pid => libc::pid_t::try_from(pid).map_err(io::Error::other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A group of version 2 that is removed at the end; `None` where this host lets us make none.
    struct Group(PathBuf);

    impl Group {
        fn make() -> Option<Group> {
            let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
            let mount = mounts.lines().find_map(|line| {
                let mut fields = line.split(' ');
                let (at, kind) = (fields.nth(1)?, fields.next()?);
                (kind == "cgroup2").then(|| at.to_owned())
            })?;
            let name = format!("firelane-test-{}", std::process::id());
            let group = Group(Path::new(&mount).join(name));
            fs::create_dir(&group.0).ok().map(|()| group)
        }
    }

    impl Drop for Group {
        fn drop(&mut self) {
            fs::remove_dir(&self.0).expect("an empty group of ours");
        }
    }

    #[test]
    fn a_process_is_born_in_its_group() {
        let Some(group) = Group::make() else {
            println!("SKIP a_process_is_born_in_its_group: no group of version 2 can be made here");
            return;
        };
        let child = clone_into(&group.0).unwrap();
        if child == 0 {
            // SAFETY: neither call allocates or locks, which a child of a process with threads must not.
            unsafe {
                libc::pause();
                libc::_exit(0);
            }
        }
        let inside = fs::read_to_string(group.0.join("cgroup.procs"));
        // SAFETY: the child was not collected, so the number is its own.
        unsafe {
            libc::kill(child, libc::SIGKILL);
            libc::waitpid(child, std::ptr::null_mut(), 0);
        }
        assert_eq!(inside.unwrap().trim(), child.to_string());
    }
}
