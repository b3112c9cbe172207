//! Frames of the session protocol (port 5001): header, kinds, caps, encoder and decoder.
//!
//! ```text
//!  0               4               8    9    10       12
//!  ├── length ─────┼── stream ─────┼kind┼chan┼─ zero ─┼── payload (length bytes) ──
//!      u32 BE          u32 BE        u8   u8    u16
//! ```
//!
//! Specified in `docs/protocol.md`, "Session protocol".

use alloc::vec::Vec;

/// Bytes of the header that each frame starts with.
pub const HEADER_BYTES: usize = 12;
/// Largest payload of a [`Kind::Data`] frame, in bytes.
pub const MAX_DATA_BYTES: usize = 64 << 10;
/// Largest payload of a frame that carries a message, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 64 << 10;
/// Largest payload of a [`Kind::Exec`] frame: the source code, its environment and the fixed part.
pub const MAX_EXEC_BYTES: usize = crate::MAX_CODE_BYTES + (256 << 10);
/// Bytes that may be in flight per stream and channel before the receiver grants more.
pub const INITIAL_WINDOW: u32 = 256 << 10;
/// Streams that may be open at once in one session.
pub const MAX_STREAMS: usize = 64;

/// What a frame is. The table of senders and payloads is in `docs/protocol.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Host, stream 0: magic and the range of versions it speaks.
    Hello = 0x01,
    /// Guest, stream 0: the version chosen and what the guest is.
    Welcome = 0x02,
    /// Either side, stream 0: eight bytes to be echoed.
    Ping = 0x03,
    /// Either side, stream 0: the eight bytes of the ping.
    Pong = 0x04,
    /// Either side, stream 0: why the sender closes the session.
    Goodbye = 0x05,
    /// Host: opens a stream that runs one program.
    Exec = 0x10,
    /// Guest: the program runs, or the folder is watched.
    Started = 0x11,
    /// Guest: the stream's request was not carried out; ends the stream.
    Refused = 0x12,
    /// Either side: bytes of a channel.
    Data = 0x13,
    /// Either side: no more bytes on a channel.
    End = 0x14,
    /// Either side: the receiver grants more bytes on a channel.
    Window = 0x15,
    /// Host: send a signal to the program.
    Signal = 0x16,
    /// Host: the terminal has a new size.
    Resize = 0x17,
    /// Guest: how the program ended; ends the stream.
    Exited = 0x18,
    /// Host: opens a stream that writes one file.
    Put = 0x20,
    /// Host: opens a stream that reads one file.
    Get = 0x21,
    /// Guest: the file that a get will send.
    FileInfo = 0x22,
    /// Guest: the request was carried out; ends the stream.
    Done = 0x23,
    /// Host: prepare for a snapshot; from here on only a renewal is accepted.
    Warm = 0x30,
    /// Host: you are a clone; take what makes you different from the others.
    Renew = 0x31,
    /// Host: stop all programs where they are; from here on only a renewal or a thaw is accepted.
    Freeze = 0x32,
    /// Host: opens a stream that follows a detached exec.
    Attach = 0x33,
    /// Host: which detached execs are there?
    List = 0x34,
    /// Host: start a detached exec.
    Launch = 0x35,
    /// Host: you were frozen and are no clone; let the programs go on.
    Thaw = 0x36,
    /// Guest: where a detached exec's channels stand.
    Attached = 0x37,
    /// Guest: the detached execs; ends the stream.
    Listing = 0x38,
    /// Host: the outcome of a detached exec was taken.
    Forget = 0x39,
    /// Host: a page of a folder's entries, please.
    ListDir = 0x40,
    /// Guest: the page.
    Entries = 0x41,
    /// Host: what is at a path?
    Stat = 0x42,
    /// Guest: what is there.
    FileStat = 0x43,
    /// Host: opens a stream that reads a part of a file.
    GetRange = 0x44,
    /// Host: make a folder.
    MakeDir = 0x45,
    /// Host: make a symbolic link.
    MakeLink = 0x46,
    /// Host: give something another path.
    Move = 0x47,
    /// Host: remove something.
    Remove = 0x48,
    /// Host: opens a stream that tells what changes in a folder.
    Watch = 0x49,
    /// Guest: what has changed; counts as data of [`Channel::File`].
    Events = 0x4a,
}

impl Kind {
    const ALL: [Kind; 39] = [
        Kind::Hello,
        Kind::Welcome,
        Kind::Ping,
        Kind::Pong,
        Kind::Goodbye,
        Kind::Exec,
        Kind::Started,
        Kind::Refused,
        Kind::Data,
        Kind::End,
        Kind::Window,
        Kind::Signal,
        Kind::Resize,
        Kind::Exited,
        Kind::Put,
        Kind::Get,
        Kind::FileInfo,
        Kind::Done,
        Kind::Warm,
        Kind::Renew,
        Kind::Freeze,
        Kind::Attach,
        Kind::List,
        Kind::Launch,
        Kind::Thaw,
        Kind::Attached,
        Kind::Listing,
        Kind::Forget,
        Kind::ListDir,
        Kind::Entries,
        Kind::Stat,
        Kind::FileStat,
        Kind::GetRange,
        Kind::MakeDir,
        Kind::MakeLink,
        Kind::Move,
        Kind::Remove,
        Kind::Watch,
        Kind::Events,
    ];

    /// Largest payload of this kind, in bytes.
    #[must_use]
    pub const fn max_payload(self) -> usize {
        match self {
            Kind::Exec | Kind::Launch => MAX_EXEC_BYTES,
            Kind::Data => MAX_DATA_BYTES,
            Kind::Ping | Kind::Pong => 8,
            Kind::Started | Kind::End | Kind::Done | Kind::List => 0,
            Kind::Window | Kind::Resize => 4,
            Kind::Signal => 1,
            _ => MAX_MESSAGE_BYTES,
        }
    }

    /// The first version of the protocol that has this kind.
    #[must_use]
    pub const fn since(self) -> u16 {
        match self {
            Kind::Freeze
            | Kind::Attach
            | Kind::List
            | Kind::Launch
            | Kind::Thaw
            | Kind::Attached
            | Kind::Listing
            | Kind::Forget => 2,
            _ => 1,
        }
    }

    fn from_byte(byte: u8) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// Which of a stream's byte channels a [`Kind::Data`], [`Kind::End`] or [`Kind::Window`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Channel {
    /// Not about a channel; every other kind of frame carries this.
    None = 0,
    /// Host to guest: the program's standard input.
    Stdin = 1,
    /// Guest to host: the program's standard output, or everything a terminal shows.
    Stdout = 2,
    /// Guest to host: the program's standard error.
    Stderr = 3,
    /// The content of a file, in the direction of the put or get; and the events of a watch.
    File = 4,
}

impl Channel {
    fn from_byte(byte: u8) -> Option<Channel> {
        match byte {
            0 => Some(Channel::None),
            1 => Some(Channel::Stdin),
            2 => Some(Channel::Stdout),
            3 => Some(Channel::Stderr),
            4 => Some(Channel::File),
            _ => None,
        }
    }
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Stream it belongs to; 0 is the session itself.
    pub stream: u32,
    /// What it is.
    pub kind: Kind,
    /// Channel it is about, [`Channel::None`] for most kinds.
    pub channel: Channel,
    /// Content; its form depends on the kind.
    pub payload: Vec<u8>,
}

impl Frame {
    /// A frame without a channel.
    #[must_use]
    pub fn new(stream: u32, kind: Kind, payload: Vec<u8>) -> Frame {
        Frame {
            stream,
            kind,
            channel: Channel::None,
            payload,
        }
    }

    /// Bytes of a channel; at most [`MAX_DATA_BYTES`].
    #[must_use]
    pub fn data(stream: u32, channel: Channel, bytes: &[u8]) -> Frame {
        Frame {
            stream,
            kind: Kind::Data,
            channel,
            payload: bytes.to_vec(),
        }
    }

    /// End of a channel.
    #[must_use]
    pub fn end(stream: u32, channel: Channel) -> Frame {
        Frame {
            stream,
            kind: Kind::End,
            channel,
            payload: Vec::new(),
        }
    }

    /// Whether the receiver's window bounds this frame. All others are bounded by their number.
    #[must_use]
    pub fn is_windowed(&self) -> bool {
        matches!(self.kind, Kind::Data | Kind::Events)
    }

    /// A grant of `bytes` more on a channel.
    #[must_use]
    pub fn window(stream: u32, channel: Channel, bytes: u32) -> Frame {
        Frame {
            stream,
            kind: Kind::Window,
            channel,
            payload: bytes.to_be_bytes().to_vec(),
        }
    }

    /// The bytes that a [`Kind::Window`] frame grants.
    ///
    /// # Errors
    /// [`FrameError::BadPayload`] if the payload is not four bytes.
    pub fn granted(&self) -> Result<u32, FrameError> {
        let bytes: [u8; 4] =
            self.payload
                .as_slice()
                .try_into()
                .map_err(|_| FrameError::BadPayload {
                    kind: self.kind as u8,
                })?;
        Ok(u32::from_be_bytes(bytes))
    }

    /// Appends the frame's bytes to `out`.
    ///
    /// # Panics
    /// If the payload is over the cap of its kind: that is a bug of the sender.
    pub fn encode(&self, out: &mut Vec<u8>) {
        assert!(
            self.payload.len() <= self.kind.max_payload(),
            "a {:?} frame of {} bytes is over its cap",
            self.kind,
            self.payload.len()
        );
        let length = u32::try_from(self.payload.len()).expect("caps are far below 4 GiB");
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&self.stream.to_be_bytes());
        out.extend_from_slice(&[self.kind as u8, self.channel as u8, 0, 0]);
        out.extend_from_slice(&self.payload);
    }
}

/// Bytes that are not a frame. The session cannot go on after one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The header names a kind that no version has.
    #[error("unknown frame kind {kind:#04x}")]
    UnknownKind {
        /// The byte found.
        kind: u8,
    },
    /// The header names a channel that no version has.
    #[error("unknown channel {channel}")]
    UnknownChannel {
        /// The byte found.
        channel: u8,
    },
    /// The reserved bytes are not zero.
    #[error("reserved header bytes are not zero")]
    Reserved,
    /// The payload would be larger than frames of this kind may be.
    #[error("frame of kind {kind:#04x} has {length} bytes, its cap is {cap}")]
    TooLarge {
        /// The kind's byte.
        kind: u8,
        /// Length in the header.
        length: usize,
        /// The cap of the kind.
        cap: usize,
    },
    /// The payload does not have the form of its kind.
    #[error("payload of a frame of kind {kind:#04x} is malformed")]
    BadPayload {
        /// The kind's byte.
        kind: u8,
    },
}

/// Turns a byte stream into frames.
///
/// After an error the stream has lost its framing: every later call gives the same error.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    start: usize,
    failed: Option<FrameError>,
}

impl Decoder {
    /// A decoder at the start of a stream.
    #[must_use]
    pub fn new() -> Decoder {
        Decoder::default()
    }

    /// Takes bytes as they arrived. Call [`Decoder::next_frame`] until it gives `None` after each
    /// push: what is kept is then less than one frame.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.failed.is_none() {
            self.buffer.drain(..self.start);
            self.start = 0;
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// The next whole frame, or `None` until more bytes are pushed.
    ///
    /// # Errors
    /// [`FrameError`] as soon as the header shows that no valid frame follows.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let next = self.try_next();
        if let Err(error) = &next {
            self.failed = Some(error.clone());
            self.buffer = Vec::new();
            self.start = 0;
        }
        next
    }

    fn try_next(&mut self) -> Result<Option<Frame>, FrameError> {
        let pending = &self.buffer[self.start..];
        let Some((header, rest)) = pending.split_first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let [l0, l1, l2, l3, s0, s1, s2, s3, kind, channel, r0, r1] = *header;
        let length = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
        let kind = Kind::from_byte(kind).ok_or(FrameError::UnknownKind { kind })?;
        let channel = Channel::from_byte(channel).ok_or(FrameError::UnknownChannel { channel })?;
        if (r0, r1) != (0, 0) {
            return Err(FrameError::Reserved);
        }
        if length > kind.max_payload() {
            return Err(FrameError::TooLarge {
                kind: kind as u8,
                length,
                cap: kind.max_payload(),
            });
        }
        let Some(payload) = rest.get(..length) else {
            return Ok(None);
        };
        let frame = Frame {
            stream: u32::from_be_bytes([s0, s1, s2, s3]),
            kind,
            channel,
            payload: payload.to_vec(),
        };
        self.start += HEADER_BYTES + length;
        Ok(Some(frame))
    }

    /// Bytes held that are not yet part of a whole frame.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.buffer.len() - self.start
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn decode_all(bytes: &[u8], step: usize) -> Result<Vec<Frame>, FrameError> {
        let mut decoder = Decoder::new();
        let mut frames = Vec::new();
        for chunk in bytes.chunks(step.max(1)) {
            decoder.push(chunk);
            while let Some(frame) = decoder.next_frame()? {
                frames.push(frame);
            }
        }
        Ok(frames)
    }

    #[test]
    fn frames_survive_any_cut_of_the_stream() {
        let frames = vec![
            Frame::new(0, Kind::Hello, vec![1, 2, 3]),
            Frame::data(7, Channel::Stdout, &[0xff; 1000]),
            Frame::end(7, Channel::Stdout),
            Frame::window(7, Channel::Stdin, 65536),
        ];
        let mut bytes = Vec::new();
        frames.iter().for_each(|frame| frame.encode(&mut bytes));
        for step in [1, 2, 11, 12, 13, 64, 5000] {
            assert_eq!(decode_all(&bytes, step).unwrap(), frames, "step {step}");
        }
    }

    #[test]
    fn a_header_that_lies_is_refused_before_its_payload() {
        let check = |header: [u8; HEADER_BYTES], expected: FrameError| {
            let mut decoder = Decoder::new();
            decoder.push(&header);
            assert_eq!(decoder.next_frame(), Err(expected.clone()));
            decoder.push(&[0; 100]);
            assert_eq!(decoder.next_frame(), Err(expected), "the error is final");
        };
        check(
            [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, 0x13, 2, 0, 0],
            FrameError::TooLarge {
                kind: 0x13,
                length: u32::MAX as usize,
                cap: MAX_DATA_BYTES,
            },
        );
        check(
            [0, 0, 0, 1, 0, 0, 0, 1, 0x14, 2, 0, 0],
            FrameError::TooLarge {
                kind: 0x14,
                length: 1,
                cap: 0,
            },
        );
        check(
            [0, 0, 0, 0, 0, 0, 0, 1, 0x99, 0, 0, 0],
            FrameError::UnknownKind { kind: 0x99 },
        );
        check(
            [0, 0, 0, 0, 0, 0, 0, 1, 0x13, 9, 0, 0],
            FrameError::UnknownChannel { channel: 9 },
        );
        check(
            [0, 0, 0, 0, 0, 0, 0, 1, 0x13, 2, 0, 1],
            FrameError::Reserved,
        );
    }

    /// Streams that look like ours for a while: whole frames, cut frames, noise.
    fn hostile_stream() -> impl Strategy<Value = Vec<u8>> {
        let frame = (
            any::<u32>(),
            0..Kind::ALL.len(),
            0..6u8,
            vec(any::<u8>(), 0..200),
        )
            .prop_map(|(stream, kind, channel, payload)| {
                let length = u32::try_from(payload.len()).unwrap();
                let mut bytes = length.to_be_bytes().to_vec();
                bytes.extend_from_slice(&stream.to_be_bytes());
                bytes.extend_from_slice(&[Kind::ALL[kind] as u8, channel, 0, 0]);
                bytes.extend_from_slice(&payload);
                bytes
            });
        let noise = vec(any::<u8>(), 0..40);
        vec(prop_oneof![8 => frame, 1 => noise], 0..12).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn fuzz_decoder_reencodes_what_it_took_and_holds_less_than_a_frame(
            bytes in hostile_stream(),
            step in 1..64usize,
        ) {
            let mut decoder = Decoder::new();
            let mut encoded = Vec::new();
            let mut failed = false;
            'stream: for chunk in bytes.chunks(step) {
                decoder.push(chunk);
                loop {
                    match decoder.next_frame() {
                        Ok(Some(frame)) => frame.encode(&mut encoded),
                        Ok(None) => break,
                        Err(_) => {
                            failed = true;
                            break 'stream;
                        }
                    }
                }
                prop_assert!(decoder.pending() < HEADER_BYTES + MAX_EXEC_BYTES);
            }
            prop_assert!(bytes.starts_with(&encoded));
            prop_assert!(failed || encoded.len() + decoder.pending() == bytes.len());
        }
    }
}
