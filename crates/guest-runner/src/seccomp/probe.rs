//! System calls that are made to see what a filter answers.
//!
//! Each is made so that it changes nothing where it is allowed: its arguments are such that the kernel
//! refuses them, with another error than EPERM where that can be.

#![expect(
    unsafe_code,
    reason = "calls that no program should make have no safe wrapper"
)]

use std::io::{self, Write};

use firelane_guest_proto::{Lang, Tier};
use libc::{c_int, c_long};

use super::filter::Profile;

/// One call.
pub(super) struct Probe {
    pub(super) name: &'static str,
    /// The lowest tier that allows it, if one does.
    from: Option<Tier>,
    number: c_long,
    args: [c_long; 4],
}

impl Probe {
    /// What the filter answers.
    pub(super) fn expected(&self, tier: Tier, profile: Profile) -> Answer {
        // A program of Rust is compiled first, by a shell, a compiler and a linker.
        let compiles = profile.0 == Some(Lang::Rust) && self.name == "clone of a process";
        if self.number == libc::SYS_clone3 {
            Answer::Errno(libc::ENOSYS)
        } else if compiles || self.from.is_some_and(|from| tier >= from) {
            Answer::Allowed
        } else {
            Answer::Errno(libc::EPERM)
        }
    }
}

/// What came of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The kernel got it.
    Allowed,
    /// The filter's error.
    Errno(c_int),
}

const fn never(name: &'static str, number: c_long, args: [c_long; 4]) -> Probe {
    Probe {
        name,
        from: None,
        number,
        args,
    }
}

const fn from(tier: Tier, name: &'static str, number: c_long, args: [c_long; 4]) -> Probe {
    Probe {
        name,
        from: Some(tier),
        number,
        args,
    }
}

const fn socket(family: c_int) -> [c_long; 4] {
    [
        family as c_long,
        (libc::SOCK_DGRAM | libc::SOCK_CLOEXEC) as c_long,
        0,
        0,
    ]
}

const fn flags(flags: c_int) -> [c_long; 4] {
    [flags as c_long, 0, 0, 0]
}

/// More than any kernel knows.
const UNKNOWN: c_long = 0x7fff;
/// A descriptor that is not open.
const CLOSED: c_long = -1;

/// All of them.
#[rustfmt::skip]
pub(super) const PROBES: [Probe; 33] = [
    from(Tier::Essential, "getpid", libc::SYS_getpid, [0; 4]),
    from(Tier::Essential, "openat", libc::SYS_openat, [CLOSED, 0, 0, 0]),
    // A thread shares memory and signals: without them the kernel refuses, and so it starts nothing.
    from(Tier::Essential, "clone of a thread", libc::SYS_clone, flags(libc::CLONE_THREAD)),
    from(Tier::Minimal, "clone of a process", libc::SYS_clone, flags(libc::CLONE_SIGHAND)),
    from(Tier::Standard, "socket AF_UNIX", libc::SYS_socket, socket(libc::AF_UNIX)),
    from(Tier::Standard, "memfd_create", libc::SYS_memfd_create, [0, UNKNOWN, 0, 0]),
    from(Tier::Network, "socket AF_INET", libc::SYS_socket, socket(libc::AF_INET)),
    from(Tier::Network, "socket AF_INET6", libc::SYS_socket, socket(libc::AF_INET6)),
    from(Tier::Network, "socket AF_NETLINK", libc::SYS_socket, socket(libc::AF_NETLINK)),
    from(Tier::Unrestricted, "socket AF_PACKET", libc::SYS_socket, socket(libc::AF_PACKET)),
    from(Tier::Unrestricted, "ptrace", libc::SYS_ptrace, [libc::PTRACE_ATTACH as c_long, 0, 0, 0]),
    from(Tier::Unrestricted, "process_vm_readv", libc::SYS_process_vm_readv, [0; 4]),
    from(Tier::Unrestricted, "pidfd_getfd", libc::SYS_pidfd_getfd, [CLOSED, 0, 0, 0]),
    from(Tier::Unrestricted, "seccomp", libc::SYS_seccomp, [UNKNOWN, 0, 0, 0]),
    never("socket AF_VSOCK", libc::SYS_socket, socket(libc::AF_VSOCK)),
    never("clone3", libc::SYS_clone3, [0; 4]),
    never("clone CLONE_NEWUSER", libc::SYS_clone, flags(libc::CLONE_NEWUSER | libc::CLONE_THREAD)),
    never("clone CLONE_NEWNS", libc::SYS_clone, flags(libc::CLONE_NEWNS | libc::CLONE_THREAD)),
    never("clone CLONE_NEWNET", libc::SYS_clone, flags(libc::CLONE_NEWNET | libc::CLONE_THREAD)),
    never("unshare", libc::SYS_unshare, [0; 4]),
    never("setns", libc::SYS_setns, [CLOSED, 0, 0, 0]),
    never("mount", libc::SYS_mount, [0; 4]),
    never("fsopen", libc::SYS_fsopen, [0; 4]),
    never("bpf", libc::SYS_bpf, [UNKNOWN, 0, 0, 0]),
    never("perf_event_open", libc::SYS_perf_event_open, [0, 0, 0, CLOSED]),
    never("io_uring_setup", libc::SYS_io_uring_setup, [0; 4]),
    never("userfaultfd", libc::SYS_userfaultfd, [UNKNOWN, 0, 0, 0]),
    never("keyctl", libc::SYS_keyctl, [UNKNOWN, 0, 0, 0]),
    never("init_module", libc::SYS_init_module, [0; 4]),
    never("kexec_load", libc::SYS_kexec_load, [0, UNKNOWN, 0, 0]),
    never("reboot", libc::SYS_reboot, [0; 4]),
    never("open_by_handle_at", libc::SYS_open_by_handle_at, [CLOSED, 0, 0, 0]),
    never("ioctl TIOCSTI", libc::SYS_ioctl, [CLOSED, libc::TIOCSTI as c_long, 0, 0]),
];

/// What the kernel, or a filter before it, says to the call: 0, or an error's number.
fn make(number: c_long, args: [c_long; 4]) -> i32 {
    let [a, b, c, d] = args;
    // SAFETY: where an argument is an address it is null, which the kernel refuses; a process or a thread
    // is never made, as the flags contradict each other; a descriptor is closed by the process's end.
    match unsafe { libc::syscall(number, a, b, c, d, 0) } {
        -1 => io::Error::last_os_error().raw_os_error().unwrap_or(-1),
        _ => 0,
    }
}

/// Makes the calls in this process, whose filter was installed before it was executed, and prints
/// `probe <name>=<errno>` for each; first what the kernel says of the process.
///
/// With the word `x32` or `i386` it makes a call by these numbers, which a filter answers with the end of the
/// process; it prints what it got, under that name, if it lives.
pub(crate) fn answer(how: Option<&str>) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    let mut say =
        |name: &str, value: &dyn std::fmt::Display| writeln!(stdout, "probe {name}={value}");
    match how {
        None => {
            let status = std::fs::read_to_string("/proc/self/status")?;
            for field in ["NoNewPrivs", "Seccomp"] {
                let named = |line: &str| {
                    Some(
                        line.strip_prefix(field)?
                            .strip_prefix(':')?
                            .trim()
                            .to_owned(),
                    )
                };
                let value = status.lines().find_map(named);
                say(
                    field,
                    &value.ok_or_else(|| {
                        io::Error::other(format!("this kernel does not say {field}"))
                    })?,
                )?;
            }
            PROBES
                .iter()
                .try_for_each(|probe| say(probe.name, &make(probe.number, probe.args)))
        }
        Some(how @ "x32") => say(how, &make(libc::SYS_getpid | 0x4000_0000, [0; 4])),
        Some(how @ "i386") => say(how, &i386_getpid()),
        Some(other) => Err(io::Error::other(format!("no probe {other:?}"))),
    }
}

/// `getpid` by the old interrupt; a kernel that has none signals SIGSEGV.
fn i386_getpid() -> i32 {
    let mut result: i32 = 20;
    // SAFETY: the call takes no arguments, and changes `eax`, and on some kernels r8 to r11, only.
    unsafe {
        std::arch::asm!("int 0x80", inout("eax") result, out("r8") _, out("r9") _, out("r10") _, out("r11") _);
    }
    result
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_probe_has_a_name_of_its_own() {
        let names: BTreeSet<&str> = PROBES.iter().map(|probe| probe.name).collect();
        assert_eq!(names.len(), PROBES.len());
    }
}
