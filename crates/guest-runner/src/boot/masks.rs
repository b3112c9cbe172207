//! What programs have no business with in `/proc` and `/sys`: in its place they find something that nobody
//! but root can open.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::mount_bind;

use super::BootError;

/// Files that tell of the kernel's memory and parts, or command it. Source: Linux,
/// `Documentation/filesystems/proc.rst` (6.1).
const FILES: [&str; 16] = [
    "/proc/iomem",
    "/proc/ioports",
    "/proc/kallsyms",
    "/proc/kcore",
    "/proc/key-users",
    "/proc/keys",
    "/proc/kmsg",
    "/proc/kpagecgroup",
    "/proc/kpagecount",
    "/proc/kpageflags",
    "/proc/modules",
    "/proc/sched_debug",
    "/proc/slabinfo",
    "/proc/sysrq-trigger",
    "/proc/timer_list",
    "/proc/vmallocinfo",
];
/// Folders of the same.
const FOLDERS: [&str; 12] = [
    "/proc/acpi",
    "/proc/bus",
    "/proc/driver",
    "/proc/dynamic_debug",
    "/proc/irq",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/fs/bpf",
    "/sys/kernel/debug",
    "/sys/kernel/security",
    "/sys/kernel/tracing",
    "/sys/module",
];
/// What they find.
const FILE: &str = "/run/firelane-masked";
const FOLDER: &str = "/run/firelane-masked.d";

/// Masks what is there; what this kernel does not have needs no mask.
pub(crate) fn put_on() -> Result<(), BootError> {
    let fail = |path: &'static str, action: &'static str| {
        move |source| BootError::File {
            action,
            path: path.into(),
            source,
        }
    };
    fs::write(FILE, "").map_err(fail(FILE, "make"))?;
    fs::create_dir(FOLDER).map_err(fail(FOLDER, "make"))?;
    for path in [FILE, FOLDER] {
        fs::set_permissions(path, Permissions::from_mode(0o000)).map_err(fail(path, "close"))?;
    }
    let files = FILES.into_iter().map(|target| (FILE, target));
    let folders = FOLDERS.into_iter().map(|target| (FOLDER, target));
    for (mask, target) in files.chain(folders) {
        if !Path::new(target).exists() {
            continue;
        }
        mount_bind(mask, target).map_err(|errno: Errno| BootError::Mount {
            target,
            source: errno.into(),
        })?;
    }
    // The masks stay, and their names are in nobody's way.
    fs::remove_file(FILE).map_err(fail(FILE, "remove"))?;
    fs::remove_dir(FOLDER).map_err(fail(FOLDER, "remove"))
}
