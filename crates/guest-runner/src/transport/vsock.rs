//! Listens on virtio-vsock. Source: Linux, vsock(7).

#![expect(unsafe_code, reason = "vsock addresses have no safe wrapper")]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::console;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 16;

/// Whether the microVM has a vsock device: without one the driver registers no such node.
pub(crate) fn available() -> bool {
    std::path::Path::new("/dev/vsock").exists()
}

/// A listening socket.
pub(crate) struct Listener(OwnedFd);

impl Listener {
    pub(crate) fn bind(port: u32) -> io::Result<Listener> {
        // SAFETY: socket takes plain numbers; the result is checked before it is owned.
        let fd = unsafe { libc::socket(libc::AF_VSOCK, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just opened and nobody else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let address = address(libc::VMADDR_CID_ANY, port);
        let length = size_of::<libc::sockaddr_vm>() as libc::socklen_t;
        // SAFETY: `address` is a whole sockaddr_vm of the length given.
        let bound = unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), length) };
        // SAFETY: listen takes plain numbers.
        if bound != 0 || unsafe { libc::listen(fd.as_raw_fd(), BACKLOG) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Listener(fd))
    }

    /// Accepts for ever. Only the host may connect.
    pub(crate) fn run(&self, serve: impl Fn(UnixStream)) {
        loop {
            match self.accept() {
                Ok((stream, libc::VMADDR_CID_HOST)) => serve(stream),
                Ok((_, cid)) => console::log(&format!("refused a connection from CID {cid}")),
                Err(error) => {
                    console::log(&format!("cannot accept: {error}"));
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
        }
    }

    fn accept(&self) -> io::Result<(UnixStream, u32)> {
        let mut peer = address(0, 0);
        let mut length = size_of::<libc::sockaddr_vm>() as libc::socklen_t;
        // SAFETY: the kernel writes at most `length` bytes to `peer`, which has as many.
        let fd = unsafe {
            libc::accept4(
                self.0.as_raw_fd(),
                (&raw mut peer).cast(),
                &raw mut length,
                libc::SOCK_CLOEXEC,
            )
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just opened and nobody else owns it. A UnixStream is used as a stream
        // socket only: reads, writes, shutdown and duplicates, which vsock has as well.
        Ok((unsafe { UnixStream::from_raw_fd(fd) }, peer.svm_cid))
    }
}

fn address(cid: u32, port: u32) -> libc::sockaddr_vm {
    // SAFETY: the address is plain data; all zeroes is a valid one.
    let mut address: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
    address.svm_family = libc::AF_VSOCK as libc::sa_family_t;
    address.svm_cid = cid;
    address.svm_port = port;
    address
}
