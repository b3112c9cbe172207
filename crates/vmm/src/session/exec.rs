//! Execs: one program each.

use std::sync::Arc;

use firelane_guest_proto::frame::{Channel, Frame, Kind, MAX_DATA_BYTES};
use firelane_guest_proto::message::{ExecSpec, Exit, Outcome, PtySize, from_frame, to_frame};

use super::{Credit, Session, SessionError, Shared, Stream, violation};

/// Longest path of an interpreter, in bytes; `PATH_MAX` of Linux.
const MAX_INTERPRETER_BYTES: usize = 4096;

/// What an exec did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The program runs.
    Started,
    /// Bytes of its stdout, or of its terminal.
    Stdout(Vec<u8>),
    /// Bytes of its stderr.
    Stderr(Vec<u8>),
    /// It ended; nothing follows.
    Ended(Outcome),
}

/// A program in the guest. Dropped before its end, it goes on until the session ends.
pub struct Exec {
    pub(super) stream: Stream,
}

/// The sending side of an exec; may be used while another task reads its events.
#[derive(Clone)]
pub struct Stdin {
    id: u32,
    shared: Arc<Shared>,
    credit: Arc<Credit>,
}

impl Session {
    /// Asks the guest to run a program.
    ///
    /// # Errors
    /// [`SessionError::TooLarge`] if the request is over the protocol's caps, or the session has
    /// ended. A refusal comes with the first event.
    pub async fn exec(&self, spec: &ExecSpec) -> Result<Exec, SessionError> {
        let frame = to_frame(0, Kind::Exec, spec).map_err(|_| SessionError::TooLarge)?;
        Ok(Exec {
            stream: self.shared.open(frame).await?,
        })
    }
}

impl Exec {
    /// The next event. Bytes that were taken let the program write more.
    ///
    /// # Errors
    /// [`SessionError::Refused`] if the program could not be started, or the session ended.
    pub async fn next(&mut self) -> Result<Event, SessionError> {
        let frame = self.stream.next().await?;
        match (frame.kind, frame.channel) {
            (Kind::Started, _) => Ok(Event::Started),
            (Kind::Data, Channel::Stdout) => {
                self.stream
                    .grant(Channel::Stdout, frame.payload.len())
                    .await?;
                Ok(Event::Stdout(frame.payload))
            }
            (Kind::Data, Channel::Stderr) => {
                self.stream
                    .grant(Channel::Stderr, frame.payload.len())
                    .await?;
                Ok(Event::Stderr(frame.payload))
            }
            (Kind::Exited, _) => Ok(Event::Ended(checked(from_frame(&frame)?)?)),
            (kind, channel) => Err(violation(&format!(
                "a {kind:?} frame on {channel:?} of an exec"
            ))),
        }
    }

    /// Its sending side.
    #[must_use]
    pub fn stdin(&self) -> Stdin {
        Stdin {
            id: self.stream.id,
            shared: Arc::clone(&self.stream.shared),
            credit: Arc::clone(&self.stream.credit),
        }
    }
}

/// An outcome that can be: a lie must not become an exit code of 0 by being cut to eight bits.
fn checked(outcome: Outcome) -> Result<Outcome, SessionError> {
    let possible = match outcome.exit {
        Exit::Code(code) => (0..=255).contains(&code),
        Exit::Signal(signal) => (1..=64).contains(&signal),
    };
    if possible && outcome.interpreter.len() <= MAX_INTERPRETER_BYTES {
        Ok(outcome)
    } else {
        Err(violation("an outcome that cannot be"))
    }
}

impl Stdin {
    /// Sends bytes to the program's standard input; waits while it does not take them.
    ///
    /// # Errors
    /// If the program or the session has ended.
    pub async fn write(&self, mut bytes: &[u8]) -> Result<(), SessionError> {
        while !bytes.is_empty() {
            let Some(room) = self.credit.take(bytes.len().min(MAX_DATA_BYTES)).await else {
                return Err(self.shared.why_ended());
            };
            let (now, later) = bytes.split_at(room);
            self.shared
                .send(&Frame::data(self.id, Channel::Stdin, now))
                .await?;
            bytes = later;
        }
        Ok(())
    }

    /// Ends the program's standard input.
    ///
    /// # Errors
    /// If the session has ended.
    pub async fn end(&self) -> Result<(), SessionError> {
        self.shared.send(&Frame::end(self.id, Channel::Stdin)).await
    }

    /// Sends a signal: SIGKILL to everything the program started, others to its process group.
    ///
    /// # Errors
    /// If the session has ended.
    pub async fn signal(&self, number: u8) -> Result<(), SessionError> {
        self.shared
            .send(&Frame::new(self.id, Kind::Signal, vec![number]))
            .await
    }

    /// Tells the program the new size of its terminal.
    ///
    /// # Errors
    /// If the session has ended.
    pub async fn resize(&self, size: PtySize) -> Result<(), SessionError> {
        let payload = [size.rows.to_be_bytes(), size.cols.to_be_bytes()].concat();
        self.shared
            .send(&Frame::new(self.id, Kind::Resize, payload))
            .await
    }
}
