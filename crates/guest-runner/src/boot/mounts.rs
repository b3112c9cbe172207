//! The guest's file systems.
//!
//! ```text
//!   /            overlay: template root (erofs, read-only) below, tmpfs above
//!   /dev         devtmpfs, read-only     /dev/pts  devpts     /dev/shm  tmpfs
//!   /proc        proc, other users' processes hidden, parts of it masked
//!   /sys         sysfs, read-only, parts of it masked     /sys/fs/cgroup  cgroup2
//!   /run         tmpfs
//! ```
//!
//! Everything that a program writes is guest memory: bounded here in bytes and in inodes.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, mkdir};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change, mount_move};

use super::BootError;

const ROOT_DISK: &str = "/dev/vda";
const ROOT_DISK_DEADLINE: Duration = Duration::from_secs(10);
/// Bytes of memory per inode of the overlay: a million empty files must not eat the guest.
const BYTES_PER_INODE: u64 = 8 << 10;
/// Part of the memory that files may take.
const OVERLAY_PERCENT: u64 = 40;

const DEVICES: MountFlags = MountFlags::NOSUID.union(MountFlags::NOEXEC);
const PSEUDO: MountFlags = DEVICES.union(MountFlags::NODEV);

/// What is needed to find devices and modules.
pub(crate) fn early() -> Result<(), BootError> {
    one("devtmpfs", "/dev", "devtmpfs", DEVICES, "mode=0755")?;
    one("proc", "/proc", "proc", PSEUDO, "")?;
    one("sysfs", "/sys", "sysfs", PSEUDO, "")
}

/// Puts the overlay root together and makes it `/`. `memory` is all the guest has, in bytes.
pub(crate) fn enter_root(memory: u64) -> Result<(), BootError> {
    wait_for_root_disk()?;
    for folder in ["/lower", "/upper", "/newroot"] {
        folder_at(folder, 0o755)?;
    }
    one(
        ROOT_DISK,
        "/lower",
        "erofs",
        MountFlags::RDONLY | MountFlags::NODEV,
        "",
    )?;
    let limits = format!(
        "size={},nr_inodes={},mode=0755",
        memory / 100 * OVERLAY_PERCENT,
        memory / BYTES_PER_INODE
    );
    let writable = MountFlags::NODEV | MountFlags::NOSUID;
    one("tmpfs", "/upper", "tmpfs", writable, &limits)?;
    folder_at("/upper/files", 0o755)?;
    folder_at("/upper/work", 0o755)?;
    let layers = "lowerdir=/lower,upperdir=/upper/files,workdir=/upper/work";
    one("overlay", "/newroot", "overlay", writable, layers)?;
    for (from, to) in [
        ("/dev", "/newroot/dev"),
        ("/proc", "/newroot/proc"),
        ("/sys", "/newroot/sys"),
    ] {
        mount_move(from, to).map_err(|errno| failed("/newroot", errno))?;
    }
    // The initrd is memory too.
    fs::remove_dir_all("/modules")
        .or_else(|error| {
            if error.kind() == io::ErrorKind::NotFound {
                Ok(())
            } else {
                Err(error)
            }
        })
        .map_err(|source| BootError::File {
            action: "remove",
            path: "/modules".into(),
            source,
        })?;
    let enter = || -> rustix::io::Result<()> {
        rustix::process::chdir("/newroot")?;
        mount_move(".", "/")?;
        rustix::process::chroot(".")?;
        rustix::process::chdir("/")
    };
    enter().map_err(|errno| failed("/", errno))
}

/// The rest, inside the new root.
pub(crate) fn late() -> Result<(), BootError> {
    folder_at("/dev/pts", 0o755)?;
    folder_at("/dev/shm", 0o755)?;
    one(
        "devpts",
        "/dev/pts",
        "devpts",
        DEVICES,
        "gid=5,mode=0620,ptmxmode=0666",
    )?;
    let shared = MountFlags::NODEV | MountFlags::NOSUID;
    one(
        "tmpfs",
        "/dev/shm",
        "tmpfs",
        shared,
        "mode=1777,size=25%,nr_inodes=4096",
    )?;
    one(
        "tmpfs",
        "/run",
        "tmpfs",
        PSEUDO,
        "mode=0755,size=5%,nr_inodes=1024",
    )?;
    // Each program joins a new group: that shall not wait for the kernel's grace periods.
    one(
        "cgroup2",
        "/sys/fs/cgroup",
        "cgroup2",
        PSEUDO,
        "favordynmods",
    )?;
    remount("/sys", PSEUDO | MountFlags::RDONLY, "")?;
    remount("/proc", PSEUDO, "hidepid=invisible")?;
    for (link, target) in [
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"),
        ("/dev/stderr", "/proc/self/fd/2"),
    ] {
        std::os::unix::fs::symlink(target, link).map_err(|source| BootError::File {
            action: "make",
            path: link.into(),
            source,
        })?;
    }
    // The devices themselves stay as they are, and the kernel may still add some: only this mount is
    // read-only.
    let devices = DEVICES | MountFlags::RDONLY | MountFlags::BIND;
    remount("/dev", devices, "")?;
    folder_at("/tmp", 0o1777)?;
    folder_at("/work", 0o755)?;
    folder_at("/home/user", 0o755)?;
    for home in ["/work", "/home/user"] {
        crate::exec::give_to_user(Path::new(home)).map_err(|source| BootError::File {
            action: "chown",
            path: home.into(),
            source,
        })?;
    }
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )
    .map_err(|errno| failed("/", errno))
}

fn wait_for_root_disk() -> Result<(), BootError> {
    let start = Instant::now();
    while !Path::new(ROOT_DISK).exists() {
        if start.elapsed() > ROOT_DISK_DEADLINE {
            return Err(BootError::NoRootDisk {
                path: ROOT_DISK,
                waited: ROOT_DISK_DEADLINE,
            });
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn one(
    source: &str,
    target: &'static str,
    kind: &str,
    flags: MountFlags,
    data: &str,
) -> Result<(), BootError> {
    let data = std::ffi::CString::new(data).map_err(|_| failed(target, Errno::INVAL))?;
    mount(source, target, kind, flags, Some(data.as_c_str())).map_err(|errno| failed(target, errno))
}

fn remount(target: &'static str, flags: MountFlags, data: &str) -> Result<(), BootError> {
    rustix::mount::mount_remount(target, flags, data).map_err(|errno| failed(target, errno))
}

fn failed(target: &'static str, errno: Errno) -> BootError {
    BootError::Mount {
        target,
        source: errno.into(),
    }
}

fn folder_at(path: &'static str, mode: u32) -> Result<(), BootError> {
    let fail = |source| BootError::File {
        action: "make",
        path: path.into(),
        source,
    };
    match mkdir(path, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(fail(errno.into())),
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(fail)
}
