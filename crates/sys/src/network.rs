//! Network namespaces, and taps in them.
//!
//! A namespace is held by a descriptor and has no name in any file system: the kernel removes it, and
//! every device in it, when its last holder is gone, however that ends. Sources: namespaces(7),
//! network_namespaces(7), setns(2); Linux, `Documentation/networking/tuntap.rst`.

#![expect(
    unsafe_code,
    reason = "leaving a namespace and asking for a tap are system calls"
)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Where a thread finds its own network namespace.
const OWN: &str = "/proc/thread-self/ns/net";
/// Longest name of a device, in bytes: `IFNAMSIZ` of `linux/if.h` without its NUL.
pub const MAX_DEVICE_NAME: usize = 15;

/// A network namespace.
#[derive(Debug)]
pub struct Namespace {
    handle: OwnedFd,
}

impl Namespace {
    /// A new, empty one, with a loopback device that is down. The caller's thread stays where it is.
    ///
    /// # Errors
    /// What the kernel says; only root, or root of a user namespace, may make one.
    pub fn new() -> io::Result<Self> {
        on_a_thread(|| {
            // SAFETY: the flag concerns network devices only, and this thread, which ends after this
            // call, uses none; memory and descriptors stay shared.
            if unsafe { libc::unshare(libc::CLONE_NEWNET) } < 0 {
                return Err(io::Error::last_os_error());
            }
            Self::current()
        })
    }

    /// That of the calling thread.
    ///
    /// # Errors
    /// If `/proc` does not show it.
    pub fn current() -> io::Result<Self> {
        let handle = File::open(OWN)?.into();
        Ok(Self { handle })
    }

    /// Another hold on the same one.
    ///
    /// # Errors
    /// If there are too many descriptors.
    pub fn try_clone(&self) -> io::Result<Self> {
        let handle = self.handle.try_clone()?;
        Ok(Self { handle })
    }

    /// Does this inside of it, on a thread of its own: what is opened and started there belongs to it.
    ///
    /// # Errors
    /// If it cannot be entered.
    ///
    /// # Panics
    /// If `work` does.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        on_a_thread(|| {
            move_into_link_name_space(self.handle.as_fd(), Some(LinkNameSpaceType::Network))?;
            Ok(work())
        })
    }

    /// Under this path other processes find it for as long as this one holds it.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        let (process, handle) = (std::process::id(), self.handle.as_raw_fd());
        PathBuf::from(format!("/proc/{process}/fd/{handle}"))
    }
}

fn on_a_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("namespace".into());
        match thread.spawn_scoped(scope, work)?.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// A virtual Ethernet device: frames written here are received by the device, and frames that it sends
/// are read here, one for each call, without a header of the kernel's.
#[derive(Debug)]
pub struct Tap {
    handle: OwnedFd,
}

impl Tap {
    /// Makes one of that name in the namespace of the calling thread. It is gone when the last copy of
    /// its descriptor is closed.
    ///
    /// # Errors
    /// `InvalidInput` if the name is empty or longer than [`MAX_DEVICE_NAME`]; else what the kernel says.
    pub fn new(name: &str) -> io::Result<Self> {
        if name.is_empty() || name.len() > MAX_DEVICE_NAME {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let device = File::options()
            .read(true)
            .write(true)
            .open("/dev/net/tun")?;
        // SAFETY: the structure is plain numbers, for which zero is a value.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = libc::c_char::from_ne_bytes([from]);
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
        // SAFETY: the descriptor is open, and the request reads and writes one `ifreq`, which outlives it.
        let done = unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF, &mut request) };
        if done < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            handle: device.into(),
        })
    }

    /// Another descriptor of the same device.
    ///
    /// # Errors
    /// If there are too many.
    pub fn handle(&self) -> io::Result<OwnedFd> {
        self.handle.try_clone()
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}

/// Lets a socket send and receive by this device only, in the namespace that the socket was made in.
///
/// # Errors
/// What the kernel says: `SO_BINDTODEVICE` of socket(7).
pub fn bind_to_device(socket: &impl AsFd, name: &str) -> io::Result<()> {
    let length = libc::socklen_t::try_from(name.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the descriptor is open, and the kernel reads `length` bytes of the name.
    let done = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_BINDTODEVICE,
            name.as_ptr().cast(),
            length,
        )
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tap_lives_in_its_namespace_only() {
        let namespace = match Namespace::new() {
            Ok(namespace) => namespace,
            Err(error) => {
                println!(
                    "SKIP a_tap_lives_in_its_namespace_only: no namespace can be made: {error}"
                );
                return;
            }
        };
        let tap = match namespace.inside(|| Tap::new("fl-test-tap")).unwrap() {
            Ok(tap) => tap,
            Err(error) => {
                println!("SKIP a_tap_lives_in_its_namespace_only: no tap can be made: {error}");
                return;
            }
        };
        let devices = || std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
        assert!(namespace.inside(devices).unwrap().contains("fl-test-tap"));
        assert!(!devices().contains("fl-test-tap"));
        drop(tap);
        assert!(!namespace.inside(devices).unwrap().contains("fl-test-tap"));
    }

    #[test]
    fn names_that_do_not_fit_are_refused() {
        for name in ["", "sixteen-letters-"] {
            let error = Tap::new(name).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        }
    }
}
