//! The writing half of a session, shared by its streams.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};

use firelane_guest_proto::frame::{Frame, Kind};
use firelane_guest_proto::message::to_frame;

/// Writes whole frames, one at a time.
pub(crate) struct Writer(Mutex<UnixStream>);

impl Writer {
    pub(crate) fn new(stream: UnixStream) -> Writer {
        Writer(Mutex::new(stream))
    }

    pub(crate) fn send(&self, frame: &Frame) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(frame.payload.len() + 16);
        frame.encode(&mut bytes);
        let mut stream = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        stream.write_all(&bytes)
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
}
