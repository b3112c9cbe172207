//! The descriptors that come with a start, each held against its role.
//!
//! A client opens what its microVM needs, with its own rights, and hands the descriptors over. What the
//! VMM gets is bounded here to what the role says: a file that can only be read, a folder of the client's own,
//! a socket between two processes, a pipe.

use std::os::fd::{AsFd, OwnedFd};

use firelane_host_proto::message::{Code, Refusal, Role, Vmm};
use firelane_launch::firecracker;
use firelane_launch::qemu::{CONSOLE_FD, LINK_FD, OPENS_FD, Origin, QMP_FD};
use rustix::fs::{FileType, OFlags};
use rustix::net::{AddressFamily, SocketType, sockopt};

use crate::refuse::{failed, refuse, refuse_with};

/// What came with a start, sorted.
#[derive(Debug)]
pub(crate) struct Given {
    /// Files and folders for the jail.
    pub(crate) files: Vec<(Role, OwnedFd)>,
    /// Sockets, with the numbers under which the VMM expects them.
    pub(crate) sockets: Vec<(OwnedFd, i32)>,
    /// What the guest says goes there, where that is the VMM's stdout.
    pub(crate) stdout: Option<OwnedFd>,
    /// What the VMM says goes there.
    pub(crate) stderr: OwnedFd,
}

impl Given {
    /// Refuses what is missing, what is too much, and what is not of its role; `uid` is the client's user.
    pub(crate) fn sort(
        vmm: &Vmm,
        uid: u32,
        roles: &[Role],
        descriptors: Vec<OwnedFd>,
    ) -> Result<Given, Refusal> {
        if roles.len() != descriptors.len() {
            let cause = format!(
                "{} descriptors are described, and {} came",
                roles.len(),
                descriptors.len()
            );
            return Err(refuse(Code::BadDescriptor, cause));
        }
        let (required, optional) = expected(vmm);
        for (at, role) in roles.iter().enumerate() {
            let known = required.contains(role) || optional.contains(role);
            if !known || roles[..at].contains(role) {
                let cause = format!("'{}' is not expected, or comes twice", role.name());
                return Err(refuse(Code::BadDescriptor, cause));
            }
        }
        if let Some(missing) = required.iter().find(|role| !roles.contains(role)) {
            let cause = format!("'{}' is missing", missing.name());
            return Err(refuse(Code::BadDescriptor, cause));
        }
        let (mut files, mut sockets) = (Vec::new(), Vec::new());
        let (mut stdout, mut stderr) = (None, None);
        for (&role, descriptor) in roles.iter().zip(descriptors) {
            match role {
                Role::Kernel | Role::Initrd | Role::Rootfs | Role::Memory | Role::State => {
                    check_file(role, &descriptor)?;
                    files.push((role, descriptor));
                }
                Role::Folder | Role::Snapshot => {
                    check_folder(role, &descriptor, uid)?;
                    files.push((role, descriptor));
                }
                Role::Stdout => {
                    check_pipe(role, &descriptor)?;
                    stdout = Some(descriptor);
                }
                Role::Stderr => {
                    check_pipe(role, &descriptor)?;
                    stderr = Some(descriptor);
                }
                Role::Monitor => sockets.push((check_socket(role, descriptor)?, QMP_FD)),
                Role::Link => sockets.push((check_socket(role, descriptor)?, LINK_FD)),
                Role::Console => sockets.push((check_socket(role, descriptor)?, CONSOLE_FD)),
                Role::Opens => sockets.push((check_socket(role, descriptor)?, OPENS_FD)),
            }
        }
        let stderr = stderr.ok_or_else(|| refuse(Code::BadDescriptor, "'stderr' is missing"))?;
        Ok(Given {
            files,
            sockets,
            stdout,
            stderr,
        })
    }
}

/// What a VMM needs, and what it may have.
fn expected(vmm: &Vmm) -> (Vec<Role>, Vec<Role>) {
    match vmm {
        Vmm::Qemu { origin, .. } => expected_of_qemu(*origin),
        Vmm::Firecracker { origin } => expected_of_firecracker(*origin),
    }
}

fn expected_of_firecracker(origin: firecracker::Origin) -> (Vec<Role>, Vec<Role>) {
    use firecracker::Origin;
    let mut required = vec![Role::Folder, Role::Stdout, Role::Stderr];
    let mut optional = vec![Role::Rootfs];
    required.extend(match origin {
        Origin::Boot => &[Role::Kernel][..],
        Origin::Template => &[Role::Kernel, Role::Snapshot],
        Origin::Clone => &[Role::State, Role::Memory],
        Origin::PagedClone => &[Role::State],
    });
    if matches!(origin, Origin::Boot | Origin::Template) {
        optional.push(Role::Initrd);
    }
    (required, optional)
}

fn expected_of_qemu(origin: Origin) -> (Vec<Role>, Vec<Role>) {
    let mut required = vec![Role::Monitor, Role::Link, Role::Console, Role::Stderr];
    let mut optional = vec![Role::Rootfs];
    if !origin.is_given() {
        required.push(Role::Kernel);
        optional.push(Role::Initrd);
    }
    if origin != Origin::Boot {
        required.push(Role::Opens);
    }
    (required, optional)
}

fn check_file(role: Role, file: &OwnedFd) -> Result<(), Refusal> {
    let (kind, flags) = look_at(file)?;
    let name = role.name();
    check_opened(role, flags)?;
    if !kind.is_file() {
        return Err(refuse(
            Code::BadDescriptor,
            format!("'{name}' is no plain file"),
        ));
    }
    if flags.intersection(OFlags::RWMODE) != OFlags::RDONLY {
        let cause = format!("'{name}' can be written");
        return Err(refuse_with(
            Code::BadDescriptor,
            cause,
            "open it for reading only",
        ));
    }
    Ok(())
}

/// A folder in which a VMM may write has to be its client's: others' are not its to give away, whoever may read
/// them.
fn check_folder(role: Role, folder: &OwnedFd, uid: u32) -> Result<(), Refusal> {
    let (kind, flags) = look_at(folder)?;
    let name = role.name();
    check_opened(role, flags)?;
    if !kind.is_dir() {
        let cause = format!("'{name}' is no folder");
        return Err(refuse(Code::BadDescriptor, cause));
    }
    let owner = rustix::fs::fstat(folder).map_err(failed("look at a descriptor"))?;
    if owner.st_uid == uid {
        return Ok(());
    }
    let cause = format!("'{name}' is a folder of another user");
    let remedy = "make a folder for each microVM";
    Err(refuse_with(Code::BadDescriptor, cause, remedy))
}

fn check_opened(role: Role, flags: OFlags) -> Result<(), Refusal> {
    if !flags.contains(OFlags::PATH) {
        return Ok(());
    }
    let name = role.name();
    let cause = format!("'{name}' was opened as a mere path, which takes no right to read it");
    Err(refuse_with(
        Code::BadDescriptor,
        cause,
        "open it for reading",
    ))
}

fn check_pipe(role: Role, pipe: &OwnedFd) -> Result<(), Refusal> {
    let (kind, flags) = look_at(pipe)?;
    if kind.is_fifo() && flags.intersection(OFlags::RWMODE) == OFlags::WRONLY {
        return Ok(());
    }
    let cause = format!("'{}' is not the writing end of a pipe", role.name());
    Err(refuse(Code::BadDescriptor, cause))
}

fn check_socket(role: Role, socket: OwnedFd) -> Result<OwnedFd, Refusal> {
    let unix = sockopt::socket_domain(&socket) == Ok(AddressFamily::UNIX);
    if unix && sockopt::socket_type(&socket) == Ok(SocketType::STREAM) {
        return Ok(socket);
    }
    let cause = format!("'{}' is no Unix stream socket", role.name());
    Err(refuse(Code::BadDescriptor, cause))
}

fn look_at(descriptor: &OwnedFd) -> Result<(FileType, OFlags), Refusal> {
    let descriptor = descriptor.as_fd();
    let stat = rustix::fs::fstat(descriptor).map_err(failed("look at a descriptor"))?;
    let flags = rustix::fs::fcntl_getfl(descriptor).map_err(failed("look at a descriptor"))?;
    Ok((FileType::from_raw_mode(stat.st_mode), flags))
}
