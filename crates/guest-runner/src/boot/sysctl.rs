//! Kernel settings that take away what a program does not need.

use std::fs;
use std::io;

use super::BootError;

/// Setting and value. Sources: Linux, `Documentation/admin-guide/sysctl/` (6.1).
const SETTINGS: [(&str, &str); 28] = [
    ("kernel/dmesg_restrict", "1"),
    ("kernel/kptr_restrict", "2"),
    ("kernel/perf_event_paranoid", "3"),
    ("kernel/unprivileged_bpf_disabled", "1"),
    ("kernel/sysrq", "0"),
    ("kernel/modules_disabled", "1"),
    ("kernel/io_uring_disabled", "2"),
    // Shared memory that nobody is attached to would be lost to later programs.
    ("kernel/shm_rmid_forced", "1"),
    ("kernel/panic", "-1"),
    ("kernel/yama/ptrace_scope", "1"),
    ("fs/protected_symlinks", "1"),
    ("fs/protected_hardlinks", "1"),
    ("fs/protected_fifos", "2"),
    ("fs/protected_regular", "2"),
    ("fs/suid_dumpable", "0"),
    ("dev/tty/ldisc_autoload", "0"),
    ("dev/tty/legacy_tiocsti", "0"),
    ("kernel/kexec_load_disabled", "1"),
    ("kernel/unprivileged_userns_clone", "0"),
    ("vm/unprivileged_userfaultfd", "0"),
    ("user/max_user_namespaces", "0"),
    ("user/max_cgroup_namespaces", "0"),
    ("user/max_ipc_namespaces", "0"),
    ("user/max_mnt_namespaces", "0"),
    ("user/max_net_namespaces", "0"),
    ("user/max_pid_namespaces", "0"),
    ("user/max_time_namespaces", "0"),
    ("user/max_uts_namespaces", "0"),
];

/// Applies the settings; one that this kernel does not have has nothing to restrict.
pub(crate) fn harden() -> Result<(), BootError> {
    SETTINGS.into_iter().try_for_each(|(name, value)| {
        let path = format!("/proc/sys/{name}");
        match fs::write(&path, value) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(BootError::File {
                action: "write",
                path: path.into(),
                source: error,
            }),
            _ => Ok(()),
        }
    })
}
