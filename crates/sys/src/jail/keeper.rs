//! The process that stays behind when a VMM gets a PID namespace of its own.
//!
//! A PID namespace begins with a child. The process that the owner started stays as the child's parent,
//! as its keeper: it ends with the VMM, in the same way, and the VMM ends with it.
//!
//! ```text
//!   owner ── keeper (root, in the host's namespaces) ── VMM (PID 1 of its own)
//!     ends ──SIGTERM──> ends ──SIGKILL──> ends
//! ```
//!
//! The keeper exists because a VMM that has changed its user can no longer be told of its parent's
//! end. Killed by SIGKILL it tells nobody: so an owner ends the VMM and not the keeper, whose number it
//! finds in [`vmm_of`].

#![expect(unsafe_code, reason = "processes are made and waited for")]

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, Signal, getpid, pidfd_open};
use rustix::thread::UnshareFlags;
use rustix::time::Timespec;

use super::{JailError, die_with, groups, step, unshare};
use crate::process::ProcessId;

/// Goes on as the child, which has the PID namespace to itself and is in `cgroups`; the parent keeps it
/// and never returns. Until the child was collected, the parent has descriptor `kept` open, and no other.
pub(super) fn stay_behind(
    owner: u32,
    cgroups: &[PathBuf],
    kept: Option<i32>,
) -> Result<(), JailError> {
    // Asked for before there is a child: from here on the owner's end is told by a signal that waits.
    let signals = step("hold back signals", hold_back())?;
    die_with(owner, Signal::TERM)?;
    let keeper = step(
        "look at the keeper",
        pidfd_open(getpid(), PidfdFlags::empty()),
    )?;
    step("make a PID namespace", unshare(UnshareFlags::NEWPID))?;
    match groups::fork_into(cgroups)? {
        0 => {
            step("let signals through", let_through(&signals))?;
            step("ask to end with the keeper", die_with_parent())?;
            match step("look at the keeper", has_ended(&keeper))? {
                true => Err(JailError::Orphan),
                false => Ok(()),
            }
        }
        child => keep(child, &signals, kept),
    }
}

/// Asks to be killed when the parent, which is in another PID namespace, ends.
pub(super) fn die_with_parent() -> rustix::io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
}

fn has_ended(process: &OwnedFd) -> io::Result<bool> {
    let mut ended = [PollFd::new(process, PollFlags::IN)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    Ok(poll(&mut ended, Some(&now))? > 0)
}

/// Blocks the signals that a keeper waits for.
fn hold_back() -> io::Result<libc::sigset_t> {
    // SAFETY: the set is plain data that is filled before it is used.
    unsafe {
        let mut signals: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut signals);
        for signal in [libc::SIGCHLD, libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
            libc::sigaddset(&raw mut signals, signal);
        }
        match libc::sigprocmask(libc::SIG_BLOCK, &raw const signals, std::ptr::null_mut()) {
            0 => Ok(signals),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

fn let_through(signals: &libc::sigset_t) -> io::Result<()> {
    // SAFETY: the set lives across the call.
    match unsafe { libc::sigprocmask(libc::SIG_UNBLOCK, signals, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Waits until the child ends, and ends as it did; a signal to end is passed on to it.
fn keep(child: libc::pid_t, signals: &libc::sigset_t, kept: Option<i32>) -> ! {
    close_all_but(kept);
    // However the VMM ended, its keeper leaves no core file.
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    // Refused it may be, but a limit can always be lowered.
    let _ = rustix::process::setrlimit(Resource::Core, none);
    loop {
        let mut signal = 0;
        // SAFETY: both pointers are to values that live across the call.
        unsafe { libc::sigwait(signals, &raw mut signal) };
        if signal != libc::SIGCHLD {
            // SAFETY: the child was not collected, so the number is its own.
            unsafe { libc::kill(child, libc::SIGKILL) };
        }
        let mut status = 0;
        // SAFETY: asks about the child that was made; the pointer lives across the call.
        let ended = unsafe { libc::waitpid(child, &raw mut status, libc::WNOHANG) };
        if ended == child {
            end_like(status, signals);
        }
    }
}

/// What the owner handed down is the VMM's, but for one.
fn close_all_but(kept: Option<i32>) {
    let close = |first: u32, last: u32| {
        if first <= last {
            // SAFETY: nothing in this process uses a descriptor from here on.
            unsafe { libc::close_range(first, last, 0) };
        }
    };
    match kept.and_then(|kept| u32::try_from(kept).ok()) {
        Some(kept @ 1..) => {
            close(0, kept - 1);
            close(kept + 1, libc::c_uint::MAX);
        }
        _ => close(0, libc::c_uint::MAX),
    }
}

fn end_like(status: libc::c_int, signals: &libc::sigset_t) -> ! {
    // SAFETY: these calls end the process, by the signal or the code that the child ended with.
    unsafe {
        if libc::WIFSIGNALED(status) {
            libc::sigprocmask(libc::SIG_UNBLOCK, signals, std::ptr::null_mut());
            libc::kill(libc::getpid(), libc::WTERMSIG(status));
        }
        libc::_exit(libc::WEXITSTATUS(status))
    }
}

/// The VMM that the process `keeper` keeps; `None` if it keeps none (yet, or any more).
///
/// Source: proc_pid_task(5), `/proc/pid/task/tid/children`.
#[must_use]
pub fn vmm_of(keeper: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children")).ok()?;
    let first = children.split_ascii_whitespace().next()?.parse().ok()?;
    Pid::from_raw(i32::try_from(first).ok()?)?;
    Some(first)
}

/// The same as a process that may be signalled: a number that was read could be another's by the time that it is
/// used, but not while the keeper still has it.
#[must_use]
pub fn kept_by(keeper: u32) -> Option<ProcessId> {
    let vmm = vmm_of(keeper)?;
    let process = ProcessId::of(vmm).ok()?;
    (vmm_of(keeper) == Some(vmm)).then_some(process)
}
