//! The writing half of a session, shared by its streams.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, MutexGuard, PoisonError};

use firelane_guest_proto::frame::{Frame, Kind};
use firelane_guest_proto::message::to_frame;

/// Bytes of answers that wait for others, at most.
const MAX_HELD: usize = 64 << 10;

/// Writes whole frames, one at a time.
pub(crate) struct Writer(Mutex<Half>);

struct Half {
    stream: UnixStream,
    /// Frames that go out with the next one.
    held: Vec<u8>,
}

impl Writer {
    pub(crate) fn new(stream: UnixStream) -> Writer {
        let held = Vec::new();
        Writer(Mutex::new(Half { stream, held }))
    }

    pub(crate) fn send(&self, frame: &Frame) -> io::Result<()> {
        let mut half = self.lock();
        frame.encode(&mut half.held);
        half.flush()
    }

    /// Sends the frame with those that come after it, or with [`Writer::flush`]: many small answers
    /// are one write.
    pub(crate) fn send_soon(&self, frame: &Frame) -> io::Result<()> {
        let mut half = self.lock();
        frame.encode(&mut half.held);
        if half.held.len() < MAX_HELD {
            return Ok(());
        }
        half.flush()
    }

    /// Sends what waits.
    pub(crate) fn flush(&self) -> io::Result<()> {
        self.lock().flush()
    }

    pub(crate) fn send_message<T: serde::Serialize>(
        &self,
        stream: u32,
        kind: Kind,
        message: &T,
    ) -> io::Result<()> {
        let frame = to_frame(stream, kind, message).map_err(io::Error::other)?;
        self.send(&frame)
    }

    fn lock(&self) -> MutexGuard<'_, Half> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Half {
    fn flush(&mut self) -> io::Result<()> {
        if self.held.is_empty() {
            return Ok(());
        }
        let written = self.stream.write_all(&self.held);
        self.held.clear();
        // One large frame shall not keep its memory.
        self.held.shrink_to(MAX_HELD);
        written
    }
}
