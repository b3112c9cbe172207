//! One session of port 5001: bytes in, bytes out.
//!
//! ```text
//!   receive ──> Decoder ──> frames ──> streams: programs that run
//!   output  <──────────────────────────  Started, Data, Exited, Refused, Done
//! ```
//!
//! What a session holds is bounded: less than one frame that is incomplete, `MAX_OUTPUT` and one
//! burst of output, and a window of input for each program that reads, of which the guest has
//! [`MAX_HOLDING`](crate::guest::MAX_HOLDING). A host that does not read is not read from.
//!
//! Specified in `docs/protocol.md`, "Session protocol".

mod program;
mod streams;

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;

use firelane_guest_proto::frame::{Decoder, Frame, FrameError, Kind};
use firelane_guest_proto::message::{
    self, BadMessage, Goodbye, Hello, Refused, RefusedCode, Welcome, from_frame, to_frame,
};

use serde::Serialize;

use self::program::Running;
use crate::guest::{Guest, Machine, refused};

/// Bytes of output that wait before no more frames are handled.
const MAX_OUTPUT: usize = 128 << 10;

/// Bytes of a request that is looked at.
const MAX_REQUEST: usize = 128 << 10;

/// Why a session ends.
#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Message(#[from] BadMessage),
    #[error("a {kind:?} frame is not expected here")]
    Unexpected { kind: Kind },
    #[error("no common version: the host speaks {min} to {max}, this guest {ours}")]
    Version { min: u16, max: u16, ours: u16 },
    #[error("stream {stream} sent more than its window")]
    Window { stream: u32 },
    #[error("stream {stream} is open already, or zero")]
    StreamTaken { stream: u32 },
    #[error("the host said goodbye")]
    Goodbye,
}

/// Where a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The hello has not come yet.
    Fresh,
    /// This version is spoken.
    Agreed(u16),
    /// Whatever comes is dropped, and nothing is said: a program asked for it.
    Silent,
    /// It has ended; what waits is still to be sent.
    Over,
}

/// A session from its first byte to its last.
#[derive(Debug)]
pub struct Session {
    decoder: Decoder,
    state: State,
    streams: BTreeMap<u32, Running>,
    output: Vec<u8>,
    /// How much of `output` is sent.
    sent: usize,
    /// Whole frames may wait in the decoder.
    unread: bool,
}

impl Default for Session {
    fn default() -> Session {
        Session {
            decoder: Decoder::new(),
            state: State::Fresh,
            streams: BTreeMap::new(),
            output: Vec::new(),
            sent: 0,
            unread: false,
        }
    }
}

impl Session {
    /// Whether it takes bytes now.
    #[must_use]
    pub fn wants_bytes(&self) -> bool {
        !self.unread && self.state != State::Over
    }

    /// Whether nothing follows what waits to be sent.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// Takes bytes as they came; only while it [wants them](Session::wants_bytes).
    pub fn receive(&mut self, bytes: &[u8]) {
        if matches!(self.state, State::Fresh | State::Agreed(_)) {
            self.decoder.push(bytes);
            self.unread = true;
        }
    }

    /// Handles the frames that are there, and lets programs go on. Gives whether anything moved.
    pub fn work(&mut self, guest: &mut Guest, machine: &mut dyn Machine) -> bool {
        let mut moved = false;
        if let Err(error) = self.read(guest, machine, &mut moved) {
            if !matches!(error, SessionError::Goodbye) {
                let reason = error.to_string();
                self.send_message(0, Kind::Goodbye, &Goodbye { reason });
            }
            self.end(guest);
            return true;
        }
        if self.waiting() < MAX_OUTPUT && !guest.is_frozen() {
            moved |= self.run(guest, machine);
        }
        moved
    }

    /// Ends it: its programs are gone.
    pub fn end(&mut self, guest: &mut Guest) {
        for (_, running) in core::mem::take(&mut self.streams) {
            running.release(guest);
        }
        self.decoder = Decoder::new();
        self.unread = false;
        self.state = State::Over;
    }

    /// What is to be sent.
    #[must_use]
    pub fn output(&self) -> &[u8] {
        &self.output[self.sent..]
    }

    /// As much of it is sent.
    pub fn sent(&mut self, bytes: usize) {
        self.sent = (self.sent + bytes).min(self.output.len());
        if self.sent == self.output.len() {
            self.output.clear();
            self.output.shrink_to(MAX_OUTPUT);
            self.sent = 0;
        }
    }

    fn waiting(&self) -> usize {
        self.output.len()
    }

    fn read(
        &mut self,
        guest: &mut Guest,
        machine: &mut dyn Machine,
        moved: &mut bool,
    ) -> Result<(), SessionError> {
        while self.unread && self.waiting() < MAX_OUTPUT {
            let Some(frame) = self.decoder.next_frame()? else {
                self.unread = false;
                break;
            };
            *moved = true;
            match self.state {
                State::Fresh => self.greet(&frame, guest)?,
                State::Agreed(version) => self.handle(frame, version, guest, machine)?,
                State::Silent | State::Over => {}
            }
        }
        Ok(())
    }

    /// Answers the hello.
    fn greet(&mut self, frame: &Frame, guest: &Guest) -> Result<(), SessionError> {
        if frame.kind != Kind::Hello || frame.stream != 0 {
            return Err(SessionError::Unexpected { kind: frame.kind });
        }
        let hello: Hello = from_frame(frame)?;
        let version = hello.agree().ok_or(SessionError::Version {
            min: hello.min_version,
            max: hello.max_version,
            ours: message::VERSION,
        })?;
        let facts = guest.facts;
        let welcome = Welcome {
            version,
            runner: concat!("bare ", env!("CARGO_PKG_VERSION")).into(),
            kernel: "none".into(),
            runner_started_us: facts.started_us,
            ready_us: facts.ready_us,
            memory_bytes: facts.memory_bytes,
        };
        self.state = State::Agreed(version);
        self.send_message(0, Kind::Welcome, &welcome);
        Ok(())
    }

    fn handle(
        &mut self,
        frame: Frame,
        version: u16,
        guest: &mut Guest,
        machine: &mut dyn Machine,
    ) -> Result<(), SessionError> {
        let id = frame.stream;
        match frame.kind {
            kind if kind.since() > version => return Err(SessionError::Unexpected { kind }),
            Kind::Ping if id == 0 => self.send(&Frame::new(0, Kind::Pong, frame.payload)),
            Kind::Pong if id == 0 => {}
            Kind::Goodbye if id == 0 => return Err(SessionError::Goodbye),
            // What it is turned into takes much more memory than it has bytes.
            Kind::Exec if frame.payload.len() > MAX_REQUEST => self.answer(id, || {
                let message = format!("a bare guest takes requests of {MAX_REQUEST} bytes at most");
                Err(refused(RefusedCode::Invalid, &message))
            })?,
            Kind::Exec => self.exec(id, &from_frame(&frame)?, guest, machine)?,
            Kind::Warm => {
                let _: message::WarmSpec = from_frame(&frame)?;
                self.answer(id, || guest.warm())?;
            }
            Kind::Renew => {
                let spec = from_frame(&frame)?;
                self.answer(id, || guest.renew(spec))?;
            }
            Kind::Freeze => {
                let _: message::FreezeSpec = from_frame(&frame)?;
                self.answer(id, || guest.freeze())?;
            }
            Kind::Thaw => {
                let spec: message::ThawSpec = from_frame(&frame)?;
                self.answer(id, || guest.thaw(&spec.seed))?;
            }
            kind @ (Kind::Put
            | Kind::Get
            | Kind::GetRange
            | Kind::ListDir
            | Kind::Stat
            | Kind::MakeDir
            | Kind::MakeLink
            | Kind::Move
            | Kind::Remove
            | Kind::Watch
            | Kind::Launch
            | Kind::Attach
            | Kind::List
            | Kind::Forget) => self.answer(id, || {
                guest.require_fresh()?;
                let message = format!("a bare guest does nothing for a {kind:?}");
                Err(refused(RefusedCode::Invalid, &message))
            })?,
            Kind::Data => self.data(id, frame.channel, &frame.payload)?,
            Kind::End => self.input_ends(id, frame.channel),
            Kind::Window => {
                let bytes = frame.granted()?;
                self.granted(id, frame.channel, bytes);
            }
            Kind::Signal => {
                let number = frame.payload.first().copied().unwrap_or(0);
                self.signal(id, number, guest, machine);
            }
            // There are no terminals.
            Kind::Resize => drop(frame.granted()?),
            kind => return Err(SessionError::Unexpected { kind }),
        }
        Ok(())
    }

    /// Carries out a request that ends with its answer.
    fn answer(
        &mut self,
        id: u32,
        act: impl FnOnce() -> Result<(), Refused>,
    ) -> Result<(), SessionError> {
        if self.admit(id)? {
            match act() {
                Ok(()) => self.send(&Frame::new(id, Kind::Done, Vec::new())),
                Err(refused) => self.send_message(id, Kind::Refused, &refused),
            }
        }
        Ok(())
    }

    fn send(&mut self, frame: &Frame) {
        frame.encode(&mut self.output);
    }

    fn send_message(&mut self, stream: u32, kind: Kind, message: &impl Serialize) {
        let frame = to_frame(stream, kind, message);
        self.send(&frame.expect("no message of this guest quotes the host, so all are short"));
    }
}

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;
