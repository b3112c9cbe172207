//! Port 5001: a session of many streams.
//!
//! One thread reads frames and hands them to their stream; what may take its time (execs, gets,
//! listings, removals, watches) has a thread of its own that writes. Puts and what else is quick are
//! done by the reader, in the order in which they were asked for.

mod attach;
mod files;
mod get;
mod streams;
mod writer;

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use firelane_guest_proto::frame::{Channel, Decoder, Frame, Kind};
use firelane_guest_proto::message::{
    self, Goodbye, Hello, PtySize, RefusedCode, Welcome, from_frame,
};

use self::streams::Streams;
use self::writer::Writer;
use crate::Guest;
use crate::exec::{Command, refused};
use crate::workers::Buffer;

/// Why a session ends.
#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error("connection failed")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Frame(#[from] firelane_guest_proto::frame::FrameError),
    #[error(transparent)]
    Message(#[from] message::BadMessage),
    #[error("a {kind:?} frame is not expected here")]
    Unexpected { kind: Kind },
    #[error("no common version: the host speaks {min} to {max}, this guest {ours}")]
    Version { min: u16, max: u16, ours: u16 },
    #[error("stream {stream} sent more than its window")]
    Window { stream: u32 },
    #[error("stream {stream} is open already, or zero")]
    StreamTaken { stream: u32 },
}

/// Serves a connection until the host closes it or stops making sense; every exec of the session
/// ends with it.
pub(crate) fn serve(guest: &Arc<Guest>, stream: UnixStream) -> io::Result<()> {
    let writer = Arc::new(Writer::new(stream.try_clone()?));
    let streams = Streams::new(Arc::clone(guest), Arc::clone(&writer));
    let served = read_all(stream, guest, &writer, &streams);
    streams.abort_all();
    match served {
        Ok(()) => Ok(()),
        Err(SessionError::Io(error)) => Err(error),
        Err(error) => {
            let goodbye = Goodbye {
                reason: error.to_string(),
            };
            writer.send_message(0, Kind::Goodbye, &goodbye)?;
            Err(io::Error::other(error))
        }
    }
}

fn read_all(
    mut stream: UnixStream,
    guest: &Guest,
    writer: &Writer,
    streams: &Streams,
) -> Result<(), SessionError> {
    let mut decoder = Decoder::new();
    let mut buffer = Buffer::take();
    let mut agreed = None;
    loop {
        while let Some(frame) = decoder.next_frame()? {
            match agreed {
                Some(version) => handle(frame, version, writer, streams)?,
                None => agreed = Some(greet(&frame, guest, writer)?),
            }
        }
        // The answers to all that has come go together.
        writer.flush()?;
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => decoder.push(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Answers the hello; gives the session's version.
fn greet(frame: &Frame, guest: &Guest, writer: &Writer) -> Result<u16, SessionError> {
    if frame.kind != Kind::Hello || frame.stream != 0 {
        return Err(SessionError::Unexpected { kind: frame.kind });
    }
    let hello: Hello = from_frame(frame)?;
    let version = hello.agree().ok_or(SessionError::Version {
        min: hello.min_version,
        max: hello.max_version,
        ours: message::VERSION,
    })?;
    let welcome = Welcome {
        version,
        runner: env!("CARGO_PKG_VERSION").into(),
        kernel: guest.facts.kernel.clone(),
        runner_started_us: guest.facts.started_us,
        ready_us: guest.facts.ready_us,
        memory_bytes: guest.facts.memory_bytes,
    };
    writer.send_message(0, Kind::Welcome, &welcome)?;
    Ok(version)
}

fn handle(
    frame: Frame,
    version: u16,
    writer: &Writer,
    streams: &Streams,
) -> Result<(), SessionError> {
    let id = frame.stream;
    match frame.kind {
        kind if kind.since() > version => return Err(SessionError::Unexpected { kind }),
        Kind::Ping if id == 0 => writer.send(&Frame::new(0, Kind::Pong, frame.payload))?,
        Kind::Pong if id == 0 => {}
        Kind::Goodbye if id == 0 => {
            return Err(io::Error::from(io::ErrorKind::ConnectionAborted).into());
        }
        Kind::Exec => streams.exec(id, from_frame(&frame)?)?,
        Kind::Put => streams.put(id, &from_frame(&frame)?)?,
        Kind::Get
        | Kind::GetRange
        | Kind::ListDir
        | Kind::Stat
        | Kind::MakeDir
        | Kind::MakeLink
        | Kind::Move
        | Kind::Remove
        | Kind::Watch => streams.files(&frame)?,
        Kind::Warm => streams.warm(id, from_frame(&frame)?)?,
        Kind::Renew => streams.renew(id, &from_frame(&frame)?)?,
        Kind::Thaw => streams.thaw(id, &from_frame(&frame)?)?,
        Kind::Freeze => streams.freeze(id, from_frame(&frame)?)?,
        Kind::Launch => streams.launch(id, from_frame(&frame)?)?,
        Kind::Attach => streams.attach(id, from_frame(&frame)?)?,
        Kind::List => streams.list(id)?,
        Kind::Forget => streams.forget(id, &from_frame(&frame)?)?,
        Kind::Data => streams.data(id, frame.channel, frame.payload)?,
        Kind::End => streams.end(id, frame.channel)?,
        Kind::Window => {
            let bytes = frame.granted()?;
            streams.command(id, Command::Grant(frame.channel, bytes));
        }
        Kind::Signal => {
            let number = frame.payload.first().copied().map_or(0, i32::from);
            streams.command(id, Command::Signal(number));
        }
        Kind::Resize => {
            let [r0, r1, c0, c1] = frame.granted()?.to_be_bytes();
            let (rows, cols) = (u16::from_be_bytes([r0, r1]), u16::from_be_bytes([c0, c1]));
            streams.command(id, Command::Resize(PtySize { rows, cols }));
        }
        kind => return Err(SessionError::Unexpected { kind }),
    }
    Ok(())
}

/// Whether bytes on this channel are a program's input.
fn is_stdin(channel: Channel) -> bool {
    channel == Channel::Stdin
}

fn too_many() -> message::Refused {
    let cap = firelane_guest_proto::frame::MAX_STREAMS;
    refused(
        RefusedCode::Exhausted,
        format!("the session has {cap} open streams already"),
    )
}
