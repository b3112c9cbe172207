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

/// What may be sent, and is given back if it is not.
struct Taken<'a> {
    credit: &'a Credit,
    bytes: u32,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.credit.give(self.bytes);
        }
    }
}

impl Stdin {
    /// Sends bytes to the program's standard input; waits while it does not take them.
    ///
    /// # Errors
    /// If the program or the session has ended.
    pub async fn write(&self, mut bytes: &[u8]) -> Result<(), SessionError> {
        while !bytes.is_empty() {
            let sent = self.write_some(bytes).await?;
            bytes = &bytes[sent..];
        }
        Ok(())
    }

    /// Sends the first of some bytes, at least one, and gives how many; waits while the program does not take any.
    /// Dropped before its end, it has sent none.
    ///
    /// # Errors
    /// If the program or the session has ended; none were sent.
    pub async fn write_some(&self, bytes: &[u8]) -> Result<usize, SessionError> {
        let wanted = bytes.len().min(MAX_DATA_BYTES);
        let Some(room) = self.credit.take(wanted).await else {
            return Err(self.shared.why_ended());
        };
        let mut taken = Taken {
            credit: &self.credit,
            bytes: u32::try_from(room).unwrap_or(u32::MAX),
        };
        let frame = Frame::data(self.id, Channel::Stdin, &bytes[..room]);
        self.shared.send_to_program(&frame).await?;
        taken.bytes = 0;
        Ok(room)
    }

    /// Ends the program's standard input.
    ///
    /// # Errors
    /// If the session has ended.
    pub async fn end(&self) -> Result<(), SessionError> {
        let end = Frame::end(self.id, Channel::Stdin);
        self.shared.send_to_program(&end).await
    }

    /// Sends a signal: SIGKILL to everything the program started, others to its process group.
    ///
    /// # Errors
    /// If the session has ended.
    pub async fn signal(&self, number: u8) -> Result<(), SessionError> {
        let signal = Frame::new(self.id, Kind::Signal, vec![number]);
        self.shared.send_to_program(&signal).await
    }

    /// Tells the program the new size of its terminal.
    ///
    /// # Errors
    /// If the session has ended.
    pub async fn resize(&self, size: PtySize) -> Result<(), SessionError> {
        let payload = [size.rows.to_be_bytes(), size.cols.to_be_bytes()].concat();
        let resize = Frame::new(self.id, Kind::Resize, payload);
        self.shared.send_to_program(&resize).await
    }
}
