//! System calls that no VMM needs: refused with EPERM, whatever the VMM's own filter lets through.
//!
//! A VMM that was taken over should find a small kernel. Firecracker's own filters and QEMU's `-sandbox`
//! are closer to what they need and come on top; this one is there in any case, and from the start. It
//! names what is refused: a list of what is allowed would have to follow every version of QEMU.

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch, apply_filter, sock_filter,
};

/// Set in the numbers of the x32 calls, which do the same and more under other numbers. Source: Linux,
/// `arch/x86/entry/syscalls/syscall_64.tbl`.
const X32: u32 = 0x4000_0000;

/// Not there, as on an older kernel, so that who uses them does without: the flags of `clone3` are in memory, where a
/// filter cannot look, and an io_uring opens and connects what the other rules refuse.
const ABSENT: [i64; 4] = [
    libc::SYS_clone3,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
];

/// Refused whatever their arguments: other roots and namespaces, other processes, the kernel's own
/// parts, and ways around filters.
const REFUSED: [i64; 49] = [
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_fsconfig,
    libc::SYS_fspick,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_mount_setattr,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_syslog,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    libc::SYS_fanotify_init,
    libc::SYS_fanotify_mark,
    libc::SYS_quotactl_fd,
    libc::SYS_lookup_dcookie,
];

/// Namespaces that a new process could be put in.
const NAMESPACES: [libc::c_int; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

/// Puts the filter on this thread and whatever it becomes. New privileges must be forbidden already.
pub(super) fn confine() -> io::Result<()> {
    apply_filter(&no_x32()).map_err(io::Error::other)?;
    let absent = ABSENT.into_iter().map(|call| (call, Vec::new()));
    install(absent.collect(), libc::ENOSYS)?;
    install(refused().map_err(io::Error::other)?, libc::EPERM)
}

/// Refuses every call of x32: some of them have no twin whose number could be listed. Source: Linux,
/// `Documentation/userspace-api/seccomp_filter.rst`; `include/uapi/linux/{bpf_common,seccomp}.h`.
fn no_x32() -> BpfProgram {
    let code = |class: u32| u16::try_from(class).unwrap_or_default();
    let instruction = |class, jf, k| sock_filter {
        code: code(class),
        jt: 0,
        jf,
        k,
    };
    let number = 0;
    let refuse = libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned();
    vec![
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, number),
        instruction(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 1, X32),
        instruction(libc::BPF_RET | libc::BPF_K, 0, refuse),
        instruction(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ALLOW),
    ]
}

fn refused() -> Result<BTreeMap<i64, Vec<SeccompRule>>, BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        REFUSED.into_iter().map(|call| (call, Vec::new())).collect();
    let namespaces = NAMESPACES.into_iter().map(|flag| {
        let flag = u64::from(flag.cast_unsigned());
        rule(0, SeccompCmpOp::MaskedEq(flag), flag)
    });
    rules.insert(libc::SYS_clone, namespaces.collect::<Result<_, _>>()?);
    let local = u64::from(libc::AF_UNIX.cast_unsigned());
    rules.insert(libc::SYS_socket, vec![rule(0, SeccompCmpOp::Ne, local)?]);
    Ok(rules)
}

fn rule(argument: u8, compare: SeccompCmpOp, value: u64) -> Result<SeccompRule, BackendError> {
    let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, compare, value)?;
    SeccompRule::new(vec![condition])
}

fn install(rules: BTreeMap<i64, Vec<SeccompRule>>, errno: libc::c_int) -> io::Result<()> {
    let refuse = SeccompAction::Errno(errno.cast_unsigned());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, TargetArch::x86_64);
    let program: Result<BpfProgram, _> = filter.and_then(TryInto::try_into);
    let program = program.map_err(io::Error::other)?;
    apply_filter(&program).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs in a thread of its own, which keeps the filter.
    fn confined<T: Send + 'static>(ask: impl FnOnce() -> T + Send + 'static) -> T {
        let thread = std::thread::spawn(|| {
            rustix::thread::set_no_new_privs(true).unwrap();
            confine().unwrap();
            ask()
        });
        thread.join().unwrap()
    }

    #[test]
    fn what_no_vmm_needs_is_refused() {
        let asked = confined(|| {
            let socket =
                |family| rustix::net::socket(family, rustix::net::SocketType::STREAM, None);
            (
                rustix::process::chroot("/").err(),
                rustix::system::sethostname(b"other").err(),
                socket(rustix::net::AddressFamily::INET).err(),
                socket(rustix::net::AddressFamily::UNIX).err(),
            )
        });
        let refused = Some(rustix::io::Errno::PERM);
        assert_eq!(asked, (refused, refused, refused, None));
    }

    /// What the kernel says to a call without arguments.
    #[expect(unsafe_code, reason = "a call is made by its number")]
    fn answer(call: i64) -> Option<i32> {
        // SAFETY: without arguments none of the calls that are tried does anything.
        match unsafe { libc::syscall(call, 0, 0, 0, 0, 0, 0) } {
            -1 => io::Error::last_os_error().raw_os_error(),
            _ => None,
        }
    }

    #[test]
    fn a_ring_is_not_there_and_no_number_leads_around_the_filter() {
        let uncommon = [101, 512, 521, 539, 547, 0x3fff_ffff].map(|call| call + i64::from(X32));
        let (absent, around, allowed) = confined(move || {
            (
                ABSENT.map(answer),
                uncommon.map(answer),
                answer(libc::SYS_getpid),
            )
        });
        assert_eq!(absent, [Some(libc::ENOSYS); 4]);
        assert_eq!(around, [Some(libc::EPERM); 6]);
        assert_eq!(allowed, None);
    }

    #[test]
    fn threads_can_still_be_made() {
        let made = confined(|| std::thread::spawn(|| 42).join().is_ok());
        assert!(made);
    }
}
