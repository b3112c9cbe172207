//! Sends one file to the host.

use std::io;

use firelane_guest_proto::frame::{Channel, Frame, INITIAL_WINDOW, Kind, MAX_DATA_BYTES};
use firelane_guest_proto::message::{GetSpec, Refused};

use super::streams::unreadable;
use super::writer::Writer;
use crate::exec::{Command, Local};
use crate::files::{open_for_get, read_full};

/// Sends the file's description and exactly as many bytes as that says.
pub(super) fn send(id: u32, spec: &GetSpec, local: &Local, writer: &Writer) -> Result<(), Refused> {
    let (mut file, info) = open_for_get(spec)?;
    let sent = writer
        .send_message(id, Kind::FileInfo, &info)
        .and_then(|()| {
            let mut window = u64::from(INITIAL_WINDOW);
            let mut left = info.size;
            let mut buffer = vec![0u8; MAX_DATA_BYTES];
            while left > 0 {
                while let Some(command) = next_command(local, window == 0)? {
                    match command {
                        Command::Grant(Channel::File, bytes) => window += u64::from(bytes),
                        Command::Abort => return Err(io::Error::other("nobody wants the rest")),
                        _ => {}
                    }
                }
                let room = left.min(window).min(buffer.len() as u64);
                let room = usize::try_from(room).map_err(io::Error::other)?;
                let count = read_full(&mut file, &mut buffer[..room])?;
                if count == 0 {
                    return Err(io::Error::other("it became shorter while it was read"));
                }
                writer.send(&Frame::data(id, Channel::File, &buffer[..count]))?;
                left -= count as u64;
                window -= count as u64;
            }
            writer.send(&Frame::end(id, Channel::File))
        });
    sent.map_err(|error| unreadable(&error))
}

/// The next command: waited for, or only if it has come.
fn next_command(local: &Local, wait: bool) -> io::Result<Option<Command>> {
    match local.pending_command() {
        None if wait => local.next_command().map(Some),
        pending => Ok(pending),
    }
}
