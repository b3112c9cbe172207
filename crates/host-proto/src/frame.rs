//! Frames on a Unix stream socket: four bytes of length, little-endian, then as many bytes of JSON.
//! Descriptors come with the first byte of a frame, by `SCM_RIGHTS` (unix(7)).
//!
//! Everything has a deadline and a bound. After an error the connection is of no use any more.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// Longest frame without its length, in bytes.
pub const MAX_FRAME_BYTES: usize = 64 << 10;
/// Most descriptors with one frame.
pub const MAX_DESCRIPTORS: usize = 12;
/// How long a frame may take from its first byte to its last, in either direction.
pub const FRAME_TIMEOUT: Duration = Duration::from_secs(5);

const LENGTH_BYTES: usize = 4;

/// A frame that came.
#[derive(Debug)]
pub struct Received {
    /// Its content.
    pub bytes: Vec<u8>,
    /// The descriptors that came with it.
    pub descriptors: Vec<OwnedFd>,
}

/// Why there is no frame.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The other side ended the connection between frames.
    #[error("the connection was closed")]
    Closed,
    /// It ended it within one.
    #[error("the connection was closed within a frame")]
    CutOff,
    /// The frame is too large.
    #[error("a frame of {length} bytes is larger than {MAX_FRAME_BYTES}")]
    TooLarge {
        /// Its length.
        length: usize,
    },
    /// Too many descriptors came with it.
    #[error("more than {MAX_DESCRIPTORS} descriptors came with a frame")]
    TooManyDescriptors,
    /// It was not there, or not whole, in time.
    #[error("nothing came in time, or only a part")]
    Late,
    /// The socket failed.
    #[error("the connection failed")]
    Io(#[from] io::Error),
}

/// Sends a frame.
///
/// # Errors
/// [`FrameError`]; a part of it may have been sent.
pub fn send(
    stream: &UnixStream,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), FrameError> {
    if bytes.len() > MAX_FRAME_BYTES {
        return Err(FrameError::TooLarge {
            length: bytes.len(),
        });
    }
    if descriptors.len() > MAX_DESCRIPTORS {
        return Err(FrameError::TooManyDescriptors);
    }
    let deadline = Instant::now() + FRAME_TIMEOUT;
    let length = u32::try_from(bytes.len()).expect("a frame's length fits in four bytes");
    let whole = [&length.to_le_bytes(), bytes].concat();
    let mut sent = 0;
    while sent < whole.len() {
        wait(stream, PollFlags::OUT, Some(deadline))?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        // With the first byte, and not again.
        if sent == 0 && !descriptors.is_empty() {
            let pushed = ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
            assert!(pushed, "there is space for as many as were counted");
        }
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        match sendmsg(
            stream,
            &[IoSlice::new(&whole[sent..])],
            &mut ancillary,
            flags,
        ) {
            Ok(count) => sent += count,
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(Errno::PIPE | Errno::CONNRESET) => return Err(FrameError::CutOff),
            Err(errno) => return Err(io::Error::from(errno).into()),
        }
    }
    Ok(())
}

/// Receives a frame, whose first byte may take `patience`, or as long as it likes.
///
/// # Errors
/// [`FrameError`].
pub fn receive(stream: &UnixStream, patience: Option<Duration>) -> Result<Received, FrameError> {
    wait(
        stream,
        PollFlags::IN,
        patience.map(|patience| Instant::now() + patience),
    )?;
    let deadline = Instant::now() + FRAME_TIMEOUT;
    let mut descriptors = Vec::new();
    let mut length = [0; LENGTH_BYTES];
    fill(stream, &mut length, &mut descriptors, deadline, true)?;
    let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
    if length > MAX_FRAME_BYTES {
        return Err(FrameError::TooLarge { length });
    }
    let mut bytes = vec![0; length];
    fill(stream, &mut bytes, &mut descriptors, deadline, false)?;
    Ok(Received { bytes, descriptors })
}

/// Reads until `buffer` is full, and not a byte of what follows.
fn fill(
    stream: &UnixStream,
    buffer: &mut [u8],
    descriptors: &mut Vec<OwnedFd>,
    deadline: Instant,
    is_first: bool,
) -> Result<(), FrameError> {
    let mut filled = 0;
    while filled < buffer.len() {
        wait(stream, PollFlags::IN, Some(deadline))?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let mut room = [IoSliceMut::new(&mut buffer[filled..])];
        let received = match recvmsg(stream, &mut room, &mut ancillary, flags) {
            Err(Errno::AGAIN | Errno::INTR) => continue,
            Err(Errno::CONNRESET) => return Err(FrameError::CutOff),
            received => received.map_err(io::Error::from)?,
        };
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                descriptors.extend(received);
            }
        }
        if descriptors.len() > MAX_DESCRIPTORS || received.flags.contains(ReturnFlags::CTRUNC) {
            return Err(FrameError::TooManyDescriptors);
        }
        match received.bytes {
            0 if is_first && filled == 0 => return Err(FrameError::Closed),
            0 => return Err(FrameError::CutOff),
            count => filled += count,
        }
    }
    Ok(())
}

/// Waits until the socket is ready, or at its end.
fn wait(
    stream: &UnixStream,
    ready: PollFlags,
    deadline: Option<Instant>,
) -> Result<(), FrameError> {
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let left = left.map(Timespec::try_from).transpose();
        let left = left.map_err(io::Error::other)?;
        let mut fds = [PollFd::from_borrowed_fd(stream.as_fd(), ready)];
        match poll(&mut fds, left.as_ref()) {
            Ok(0) => return Err(FrameError::Late),
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(io::Error::from(errno).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_frame_comes_with_its_descriptors_and_takes_nothing_of_the_next() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let file = File::open("/dev/zero").unwrap();
        send(&ours, b"first", &[file.as_fd(), file.as_fd()]).unwrap();
        send(&ours, b"", &[]).unwrap();
        let first = receive(&theirs, None).unwrap();
        assert_eq!(first.bytes, b"first");
        assert_eq!(first.descriptors.len(), 2);
        let mut byte = [1];
        let mut zero = File::from(first.descriptors.into_iter().next().unwrap());
        zero.read_exact(&mut byte).unwrap();
        assert_eq!(byte, [0]);
        let second = receive(&theirs, None).unwrap();
        assert!(second.bytes.is_empty() && second.descriptors.is_empty());
        drop(ours);
        assert!(matches!(receive(&theirs, None), Err(FrameError::Closed)));
    }

    #[test]
    fn what_is_too_large_is_refused_by_its_length_alone() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let length = u32::try_from(MAX_FRAME_BYTES + 1).unwrap();
        ours.write_all(&length.to_le_bytes()).unwrap();
        let error = receive(&theirs, None).unwrap_err();
        assert!(matches!(error, FrameError::TooLarge { .. }), "{error:?}");
        let large = vec![0; MAX_FRAME_BYTES + 1];
        let error = send(&ours, &large, &[]).unwrap_err();
        assert!(matches!(error, FrameError::TooLarge { .. }), "{error:?}");
    }

    #[test]
    fn more_descriptors_than_there_may_be_are_refused_and_closed() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (read, write) = rustix::pipe::pipe().unwrap();
        for _ in 0..=MAX_DESCRIPTORS {
            // Each with a byte of one frame's length.
            let mut space =
                [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            let many = [write.as_fd(); MAX_DESCRIPTORS];
            assert!(ancillary.push(SendAncillaryMessage::ScmRights(&many)));
            let bytes = [IoSlice::new(&[1])];
            sendmsg(&ours, &bytes, &mut ancillary, SendFlags::empty()).unwrap();
        }
        let error = receive(&theirs, None).unwrap_err();
        assert!(matches!(error, FrameError::TooManyDescriptors), "{error:?}");
        // What waits in the socket goes with it; then nobody has the pipe open for writing.
        drop((ours, theirs, write));
        assert_eq!(File::from(read).read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn a_frame_that_is_cut_off_is_told_apart_from_an_end() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        ours.write_all(&[9, 0, 0, 0, b'x']).unwrap();
        drop(ours);
        let error = receive(&theirs, None).unwrap_err();
        assert!(matches!(error, FrameError::CutOff), "{error:?}");
    }

    #[test]
    fn nobody_waits_for_ever_for_a_first_byte() {
        let (_ours, theirs) = UnixStream::pair().unwrap();
        let error = receive(&theirs, Some(Duration::from_millis(1))).unwrap_err();
        assert!(matches!(error, FrameError::Late), "{error:?}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_frames_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            let (mut ours, theirs) = UnixStream::pair().unwrap();
            ours.write_all(&bytes).unwrap();
            drop(ours);
            let mut read = 0;
            while let Ok(frame) = receive(&theirs, None) {
                read += LENGTH_BYTES + frame.bytes.len();
            }
            prop_assert!(read <= bytes.len());
        }
    }
}
