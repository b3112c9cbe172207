//! Follows a detached exec on one stream.

use std::io;

use firelane_guest_proto::frame::{Channel, Frame, Kind, MAX_DATA_BYTES};
use firelane_guest_proto::message::{AttachSpec, Outcome, Refused, RefusedCode};

use super::streams::{Streams, unreadable};
use crate::detached::{Detached, Position, Turn};
use crate::exec::{Command, Local, Remote, refused};

/// Sends what the exec does until it has ended, somebody else follows it, or the session is gone.
pub(super) fn follow(
    id: u32,
    spec: &AttachSpec,
    exec: &Detached,
    (remote, local): (Remote, &Local),
    streams: &Streams,
) -> Result<Outcome, Refused> {
    let (position, attached) = exec.attach(spec, remote)?;
    let mut follower = Follower {
        id,
        exec,
        streams,
        position,
        input: Vec::new(),
        input_ended: false,
    };
    let followed = streams
        .writer()
        .send_message(id, Kind::Attached, &attached)
        .and_then(|()| follower.run(local));
    exec.detach(&follower.position);
    followed.map_err(|error| unreadable(&error))?
}

struct Follower<'a> {
    id: u32,
    exec: &'a Detached,
    streams: &'a Streams,
    position: Position,
    /// Input that the exec does not take yet; no more than the stream's window.
    input: Vec<u8>,
    input_ended: bool,
}

impl Follower<'_> {
    fn run(&mut self, local: &Local) -> io::Result<Result<Outcome, Refused>> {
        loop {
            match self.exec.turn(&mut self.position, MAX_DATA_BYTES) {
                Turn::Output(channel, bytes) => {
                    let frame = Frame::data(self.id, channel, &bytes);
                    self.streams.writer().send(&frame)?;
                }
                Turn::InputTaken(bytes) => self.streams.grant_stdin(self.id, bytes)?,
                Turn::Ended(ended) => return Ok(ended),
                Turn::TakenOver => {
                    let message = "another stream follows this exec now";
                    return Ok(Err(refused(RefusedCode::TakenOver, message.into())));
                }
                Turn::Wait => self.obey(local.next_command()?)?,
            }
            // What has come meanwhile, so that the host's signals overtake a flood of output.
            while let Some(command) = local.pending_command() {
                self.obey(command)?;
            }
            self.feed();
        }
    }

    fn obey(&mut self, command: Command) -> io::Result<()> {
        match command {
            Command::Stdin(bytes) => self.input.extend(bytes),
            Command::StdinEnd => self.input_ended = true,
            Command::Grant(channel @ (Channel::Stdout | Channel::Stderr), bytes) => {
                self.exec.confirm(&mut self.position, channel, bytes);
            }
            Command::Abort => return Err(io::Error::other("the session is gone")),
            Command::Look | Command::Grant(..) => {}
            other @ (Command::Signal(_) | Command::Resize(_)) => self.exec.command(other),
        }
        Ok(())
    }

    /// Input goes to the program in order, its end last.
    fn feed(&mut self) {
        if !self.input.is_empty() {
            self.input = self
                .exec
                .feed(&self.position, std::mem::take(&mut self.input));
        }
        if self.input_ended && self.input.is_empty() {
            self.input_ended = false;
            self.exec.command(Command::StdinEnd);
        }
    }
}
