//! The minimal root of a jail: a tmpfs with read-only binds of what the VMM needs.
//!
//! Everything is found under the path it has outside, so that a VMM's command line is the same
//! with and without the jail.

use std::fs;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount,
    mount_bind_recursive, mount_change, mount_remount, move_mount, open_tree, unmount,
};

use super::{Given, Jail, JailError, c_path, step};

/// Enough for mount points and nothing else.
const TMPFS_OPTIONS: &std::ffi::CStr = c"size=64k,nr_inodes=256,mode=0755";
/// Enough for a jailer's copy of the VMM as well.
const JAILER_OPTIONS: &std::ffi::CStr = c"size=64m,nr_inodes=256,mode=0755";

/// Puts the root together at the jail's mount point. Devices become the property of `user`, if there
/// is one.
pub(super) fn assemble(
    jail: &Jail,
    user: Option<u32>,
    given: &[Taken<'_>],
) -> Result<(), JailError> {
    let mountpoint = jail.mountpoint.as_path();
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    step("make mounts private", mount_change("/", private))?;
    let (flags, options) = match jail.is_jailer {
        // It puts the VMM there, and starts it.
        true => (MountFlags::NOSUID, JAILER_OPTIONS),
        // Devices are made here by us; the VMM has no capability to make one.
        false => (MountFlags::NOSUID | MountFlags::NOEXEC, TMPFS_OPTIONS),
    };
    step(
        "mount the jail's root",
        mount("tmpfs", mountpoint, "tmpfs", flags, Some(options)),
    )?;
    let sealed = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    for path in &jail.read_only {
        place(mountpoint, path, sealed)?;
    }
    let writable = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    for path in &jail.writable {
        place(mountpoint, path, writable)?;
    }
    for device in jail.devices.iter().filter(|device| device.exists()) {
        let made = match user {
            Some(user) => make_device(mountpoint, device, user)?,
            None => false,
        };
        if !made {
            place(mountpoint, device, MountFlags::NOSUID | MountFlags::NOEXEC)?;
        }
    }
    for (tree, given) in given {
        place_given(mountpoint, tree, given)?;
    }
    if jail.is_jailer {
        return Ok(());
    }
    step(
        "seal the jail's root",
        mount_remount(mountpoint, flags | MountFlags::RDONLY, c""),
    )
}

/// A file or folder that was given, as a mount of its own that is nowhere yet, and where it goes.
pub(super) type Taken<'a> = (OwnedFd, &'a Given);

/// Takes what is given by descriptors, of the mounts that they are on. Source: open_tree(2).
#[expect(unsafe_code, reason = "descriptors are named by their numbers")]
pub(super) fn take(given: &[Given], allowed: bool) -> Result<Vec<Taken<'_>>, JailError> {
    if !given.is_empty() && !allowed {
        let none = io::Error::other("this host lets us have no mounts of our own");
        return step("place files that are given", Err(none));
    }
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    let take = |given: &'_ Given| {
        // SAFETY: the owner put the descriptor there, and it is closed only after the root was made.
        let file = unsafe { BorrowedFd::borrow_raw(given.descriptor) };
        let name = format!("take the file for {}", given.path.display());
        step(&name, open_tree(file, "", flags))
    };
    given
        .iter()
        .map(|given| Ok((take(given)?, given)))
        .collect()
}

/// Makes a file that was taken appear under the root, read-only, or a folder, writable.
fn place_given(root: &Path, tree: &OwnedFd, given: &Given) -> Result<(), JailError> {
    let name = format!("place {} in the jail", given.path.display());
    let inside = inside(root, &given.path);
    step(&name, make_parents(&inside))?;
    // Nobody but us has this root, and what is in it was put there by us: there is no link to follow.
    match given.folder {
        true => step(&name, fs::create_dir(&inside))?,
        false => drop(step(&name, fs::File::create_new(&inside))?),
    }
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    step(&name, move_mount(tree, "", CWD, &inside, flags))?;
    let path = step(&name, c_path(&inside))?;
    let sealed = match given.folder {
        true => restrict_below(&path, libc::MOUNT_ATTR_NOEXEC),
        false => seal_below(&path),
    };
    step(&name, sealed)
}

/// Moves to the root that was put together; the host's tree is gone afterwards.
pub(super) fn enter(mountpoint: &Path) -> Result<(), JailError> {
    step("enter the jail's root", rustix::process::chdir(mountpoint))?;
    // Both arguments may be the same: the old root is then mounted over the new one, and detached.
    step("change the root", rustix::process::pivot_root(".", "."))?;
    step("leave the host's tree", unmount(".", UnmountFlags::DETACH))?;
    step("enter the new root", rustix::process::chdir("/"))
}

/// Makes `path` appear under the root. Links are copied, and what they lead to is placed as well.
fn place(root: &Path, path: &Path, flags: MountFlags) -> Result<(), JailError> {
    let name = format!("place {} in the jail", path.display());
    let inside = inside(root, path);
    if inside.exists() {
        return Ok(());
    }
    if path.is_symlink() {
        let target = step(&name, fs::read_link(path))?;
        step(&name, make_parents(&inside))?;
        step(&name, std::os::unix::fs::symlink(&target, &inside))?;
        let target = path.parent().unwrap_or(Path::new("/")).join(target);
        return place(root, &normal(&target), flags);
    }
    step(&name, make_parents(&inside))?;
    if path.is_dir() {
        step(&name, fs::create_dir_all(&inside))?;
    } else {
        step(&name, fs::File::create(&inside))?;
    }
    let (from, to) = (step(&name, c_path(path))?, step(&name, c_path(&inside))?);
    step(&name, mount_bind_recursive(from.as_c_str(), to.as_c_str()))?;
    // In a user namespace the flags that the host's mount has may not be cleared; adding is fine.
    step(
        &name,
        mount_remount(&inside, MountFlags::BIND | flags | locked(&inside)?, c""),
    )?;
    if flags.contains(MountFlags::RDONLY) {
        // Whatever the host has mounted below it, too.
        step(&name, seal_below(&to))?;
    }
    Ok(())
}

/// Makes a mount and all below it read-only, without devices and set-id programs.
fn seal_below(path: &std::ffi::CStr) -> io::Result<()> {
    restrict_below(path, libc::MOUNT_ATTR_RDONLY)
}

/// Takes devices and set-id programs away from a mount and all below it, and `more`. What is restricted
/// already stays so. Source: mount_setattr(2).
#[expect(unsafe_code, reason = "mount_setattr has no safe wrapper")]
fn restrict_below(path: &std::ffi::CStr, more: u64) -> io::Result<()> {
    // SAFETY: the attributes are plain data; all zeroes changes nothing.
    let mut attributes: libc::mount_attr = unsafe { std::mem::zeroed() };
    attributes.attr_set = more | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
    // SAFETY: both pointers are to values that live across the call, and the size is theirs.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::AT_RECURSIVE,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Flags of the mount that a user namespace must keep.
fn locked(path: &Path) -> Result<MountFlags, JailError> {
    let stat = step("look at a mount", rustix::fs::statvfs(path))?;
    let mut flags = MountFlags::empty();
    for (have, keep) in [
        (rustix::fs::StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
        (
            rustix::fs::StatVfsMountFlags::NODIRATIME,
            MountFlags::NODIRATIME,
        ),
        (
            rustix::fs::StatVfsMountFlags::RELATIME,
            MountFlags::RELATIME,
        ),
        (rustix::fs::StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
    ] {
        if stat.f_flag.contains(have) {
            flags |= keep;
        }
    }
    Ok(flags)
}

/// Whether mounting is allowed here at all; what is mounted is lost with the namespace.
pub(super) fn try_mount() -> Result<(), JailError> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    step("make mounts private", mount_change("/", private))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    step(
        "mount",
        mount("tmpfs", "/proc", "tmpfs", flags, Some(TMPFS_OPTIONS)),
    )
}

/// A node of the same device that only `user` may use, whoever may use the host's. False where
/// even root may not make nodes.
fn make_device(root: &Path, device: &Path, user: u32) -> Result<bool, JailError> {
    let name = format!("make {} in the jail", device.display());
    let inside = inside(root, device);
    step(&name, make_parents(&inside))?;
    let stat = step(&name, rustix::fs::stat(device))?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    match mknodat(CWD, &inside, kind, Mode::from_raw_mode(0o600), stat.st_rdev) {
        Err(rustix::io::Errno::PERM) => return Ok(false),
        made => step(&name, made)?,
    }
    step(
        &name,
        std::os::unix::fs::chown(&inside, Some(user), Some(user)),
    )?;
    Ok(true)
}

fn inside(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

fn make_parents(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)
}

/// Takes `..` and `.` out of an absolute path by its text.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::ParentDir => drop(normal.pop()),
            Component::Normal(name) => normal.push(name),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    normal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_resolved_by_their_text() {
        let check =
            |path: &str, expected: &str| assert_eq!(normal(Path::new(path)), Path::new(expected));
        check("/lib/../usr/lib", "/usr/lib");
        check("/./a/b/..", "/a");
        check("/../..", "/");
    }
}
