//! Sends the bytes of one file to the host.

use std::fs::File;
use std::io;

use firelane_guest_proto::frame::{Channel, Frame, INITIAL_WINDOW, MAX_DATA_BYTES};
use firelane_guest_proto::message::Refused;

use super::streams::unreadable;
use super::writer::Writer;
use crate::exec::{Command, Local};
use crate::files::read_full;

/// Sends exactly `left` bytes, from where the file stands.
pub(super) fn send_bytes(
    id: u32,
    mut file: File,
    mut left: u64,
    local: &Local,
    writer: &Writer,
) -> Result<(), Refused> {
    let mut send = || {
        let mut window = u64::from(INITIAL_WINDOW);
        let most = usize::try_from(left).unwrap_or(usize::MAX);
        let mut buffer = vec![0u8; MAX_DATA_BYTES.min(most)];
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
    };
    send().map_err(|error| unreadable(&error))
}

/// The next command: waited for, or only if it has come.
fn next_command(local: &Local, wait: bool) -> io::Result<Option<Command>> {
    match local.pending_command() {
        None if wait => local.next_command().map(Some),
        pending => Ok(pending),
    }
}
