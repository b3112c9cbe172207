//! Whether this host's KVM answers.
//!
//! An answer is necessary, not sufficient: whether guests really run is shown only by booting one.
//! Source: Linux, `Documentation/virt/kvm/api.rst`, sections 4.1 to 4.7.

#![expect(unsafe_code, reason = "KVM is driven by ioctls")]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

const KVM_GET_API_VERSION: libc::c_ulong = 0xae00;
const KVM_CREATE_VM: libc::c_ulong = 0xae01;
const KVM_CREATE_VCPU: libc::c_ulong = 0xae41;
/// The only version there has been since Linux 2.6.22.
const API_VERSION: i32 = 12;

/// Why KVM cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KvmError {
    /// The device is missing or closed to us.
    #[error("cannot open /dev/kvm")]
    Open(#[source] io::Error),
    /// It speaks another version.
    #[error("/dev/kvm has API version {found}, not {API_VERSION}")]
    Version {
        /// What it says.
        found: i32,
    },
    /// It refuses to make a virtual machine or processor.
    #[error("/dev/kvm refuses to make a {what}")]
    Refused {
        /// What was asked for.
        what: &'static str,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
}

/// Opens KVM and makes an empty virtual machine with one processor.
///
/// # Errors
/// [`KvmError`] naming the first step that failed.
pub fn check() -> Result<(), KvmError> {
    let kvm = File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .map_err(KvmError::Open)?;
    let found = ioctl(&kvm, KVM_GET_API_VERSION).map_err(KvmError::Open)?;
    if found != API_VERSION {
        return Err(KvmError::Version { found });
    }
    let vm = made(&kvm, KVM_CREATE_VM, "virtual machine")?;
    made(&vm, KVM_CREATE_VCPU, "virtual processor")?;
    Ok(())
}

fn made(
    from: &impl AsRawFd,
    request: libc::c_ulong,
    what: &'static str,
) -> Result<OwnedFd, KvmError> {
    let fd = ioctl(from, request).map_err(|source| KvmError::Refused { what, source })?;
    // SAFETY: these requests return a fresh descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// An ioctl without an argument structure; the argument 0 is the default type or number.
fn ioctl(fd: &impl AsRawFd, request: libc::c_ulong) -> io::Result<i32> {
    // SAFETY: the descriptor is open and the requests used here take a plain number.
    match unsafe { libc::ioctl(fd.as_raw_fd(), request, 0) } {
        result if result < 0 => Err(io::Error::last_os_error()),
        result => Ok(result),
    }
}
