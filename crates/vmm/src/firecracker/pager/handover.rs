//! How a VMM hands over its guest's memory: it connects, and sends a list of regions with a descriptor.
//!
//! Source: Firecracker, `docs/snapshotting/handling-page-faults-on-snapshot-resume.md`, v1.16.1: one message, JSON,
//! with the userfaultfd attached (unix(7), `SCM_RIGHTS`); after it nothing is said, and the connection stays
//! open until the VMM ends.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Instant;

use firelane_sys::userfault::Userfault;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::socket_peercred;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::PagerError;
use super::layout::{Layout, Mapping};

/// Longest message that is read, in bytes; a real one has less than 500.
const MAX_MESSAGE_BYTES: usize = 16 << 10;

/// Memory that was handed over.
pub(super) struct Handed {
    pub(super) faults: Userfault,
    pub(super) layout: Layout,
    /// Closed when the VMM ends.
    pub(super) connection: UnixStream,
}

/// Waits until the VMM with this process number has handed over `memory_bytes` of memory. Nothing, if it is told to
/// stop before.
pub(super) fn receive(
    listener: &UnixListener,
    stop: BorrowedFd<'_>,
    vmm: u32,
    memory_bytes: u64,
    deadline: Instant,
) -> Result<Option<Handed>, PagerError> {
    if !readable(listener.as_fd(), stop, deadline)? {
        return Ok(None);
    }
    let accepted = listener.accept();
    let (connection, _) = accepted.map_err(PagerError::step("accept the VMM's connection"))?;
    let peer = socket_peercred(&connection);
    let peer = peer.map_err(|errno| PagerError::step("see who connects")(errno.into()))?;
    // Translated into our PID namespace: the number that we know.
    if peer.pid.as_raw_pid().cast_unsigned() != vmm {
        return Err(PagerError::Stranger);
    }
    let (mut message, mut descriptor) = (Vec::new(), None);
    let mappings: Vec<Mapping> = loop {
        if !readable(connection.as_fd(), stop, deadline)? {
            return Ok(None);
        }
        let count = read_some(&connection, &mut message, &mut descriptor)
            .map_err(PagerError::step("read what the VMM says of its memory"))?;
        match serde_json::from_slice(&message) {
            Ok(mappings) => break mappings,
            Err(error) if count == 0 || !error.is_eof() => {
                return Err(PagerError::Malformed(error));
            }
            Err(_) if message.len() >= MAX_MESSAGE_BYTES => return Err(PagerError::TooLong),
            // The rest is still to come.
            Err(_) => {}
        }
    };
    let descriptor = descriptor.ok_or(PagerError::NoDescriptor)?;
    let faults = Userfault::received(descriptor).map_err(PagerError::Descriptor)?;
    let layout = Layout::check(&mappings, memory_bytes)?;
    Ok(Some(Handed {
        faults,
        layout,
        connection,
    }))
}

/// Reads what there is; the first descriptor is kept, others are closed.
fn read_some(
    connection: &UnixStream,
    message: &mut Vec<u8>,
    descriptor: &mut Option<OwnedFd>,
) -> io::Result<usize> {
    let mut bytes = [0; 4096];
    let room = bytes.len().min(MAX_MESSAGE_BYTES - message.len());
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(
        connection,
        &mut [IoSliceMut::new(&mut bytes[..room])],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT,
    );
    let count = match received {
        Ok(received) => received.bytes,
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Ok(1),
        Err(errno) => return Err(errno.into()),
    };
    for passed in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = passed {
            for one in descriptors {
                descriptor.get_or_insert(one);
            }
        }
    }
    message.extend_from_slice(&bytes[..count]);
    Ok(count)
}

/// Waits until there is something to read, or the end of it. Not, if it is told to stop before.
fn readable(
    from: BorrowedFd<'_>,
    stop: BorrowedFd<'_>,
    deadline: Instant,
) -> Result<bool, PagerError> {
    let mut fds = [
        PollFd::from_borrowed_fd(from, PollFlags::IN),
        PollFd::from_borrowed_fd(stop, PollFlags::IN),
    ];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).unwrap_or_default();
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) => return Err(PagerError::Silent),
            Ok(_) if !fds[1].revents().is_empty() => return Ok(false),
            Ok(_) => return Ok(true),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(PagerError::step("wait for the VMM")(errno.into())),
        }
    }
}
