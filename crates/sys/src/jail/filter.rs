//! System calls that no VMM needs: refused with EPERM, whatever the VMM's own filter lets through.
//!
//! A VMM that was taken over should find a small kernel. Firecracker's own filters and QEMU's `-sandbox`
//! are closer to what they need and come on top; this one is there in any case, and from the start. It
//! names what is refused: a list of what is allowed would have to follow every version of QEMU.

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BackendError, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter,
};

/// Set in the numbers of the x32 calls, which do the same under other numbers. Source: Linux,
/// `arch/x86/entry/syscalls/syscall_64.tbl`.
const X32: i64 = 0x4000_0000;

/// Refused whatever their arguments: other roots and namespaces, other processes, the kernel's own
/// parts, and ways around filters.
const REFUSED: [i64; 45] = [
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
    // Its flags are in memory, where a filter cannot look; libraries fall back to `clone` for ENOSYS.
    let clone3 = BTreeMap::from([
        (libc::SYS_clone3, Vec::new()),
        (libc::SYS_clone3 + X32, Vec::new()),
    ]);
    install(clone3, libc::ENOSYS)?;
    install(refused().map_err(io::Error::other)?, libc::EPERM)
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
    let again: Vec<_> = rules
        .iter()
        .map(|(call, rules)| (call + X32, rules.clone()))
        .collect();
    rules.extend(again);
    Ok(rules)
}

fn rule(argument: u8, compare: SeccompCmpOp, value: u64) -> Result<SeccompRule, BackendError> {
    let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, compare, value)?;
    SeccompRule::new(vec![condition])
}

fn install(rules: BTreeMap<i64, Vec<SeccompRule>>, errno: libc::c_int) -> io::Result<()> {
    let refuse = SeccompAction::Errno(errno.cast_unsigned());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, TargetArch::x86_64);
    let program: Result<seccompiler::BpfProgram, _> = filter.and_then(TryInto::try_into);
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

    #[test]
    fn threads_can_still_be_made() {
        let made = confined(|| std::thread::spawn(|| 42).join().is_ok());
        assert!(made);
    }
}
