//! The link: vsock's connections carried over one byte stream.
//!
//! QEMU's software emulation has no vsock device that survives a snapshot, but a virtio-serial
//! port does. The link gives that port what vsock has: connections from host to guest, opened by
//! port number, each with its own flow control, half-close and reset. So everything above it is
//! the same on both drivers.
//!
//! ```text
//!  0    1    2        4               8
//!  ├kind┼zero┼─length─┼─ connection ──┼── payload (length bytes) ──
//!   u8   u8   u16 BE      u32 BE
//! ```
//!
//! A link starts, at boot and after each restore, with [`Kind::Attach`] and a nonce of the host's;
//! the guest drops every connection and answers [`Kind::Ready`] with that nonce. What the host
//! reads before that answer is of an earlier life and is skipped: after a restore it may begin
//! anywhere in a frame, so the answer is looked for with a [`ReadyFinder`]. In the other direction
//! nothing is cut: before the host pauses a microVM it sends nothing after a [`Kind::Mark`] until
//! the guest has answered it, and so has read everything. Specified in `docs/protocol.md`.

use alloc::vec::Vec;

/// Bytes of the header that each link frame starts with.
pub const HEADER_BYTES: usize = 8;
/// Largest payload of a link frame, in bytes.
pub const MAX_PAYLOAD_BYTES: usize = 32 << 10;
/// Bytes that may be in flight per connection and direction before the receiver grants more.
pub const WINDOW_BYTES: u32 = 128 << 10;
/// Connections that may be open at once.
pub const MAX_CONNECTIONS: usize = 32;
/// Name of the virtio-serial port that carries the link.
pub const PORT_NAME: &str = "firelane.link";

/// What a link frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Host, connection 0: forget all connections; the payload is a nonce of 8 bytes.
    Attach = 1,
    /// Guest, connection 0: attached; the payload is the nonce.
    Ready = 2,
    /// Host: open this connection; the payload is the port, u32 BE.
    Open = 3,
    /// Guest: the connection is open.
    Opened = 4,
    /// Either side: bytes.
    Data = 5,
    /// Either side: the receiver grants more bytes; the payload is a u32 BE.
    Credit = 6,
    /// Either side: no more bytes from here.
    Shut = 7,
    /// Either side: the connection is gone, or was refused.
    Reset = 8,
    /// Host, connection 0: say when you have read this; the payload is a nonce of 8 bytes.
    Mark = 9,
    /// Guest, connection 0: everything before the mark was read; the payload is its nonce.
    Marked = 10,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Kind> {
        use Kind::{Attach, Credit, Data, Mark, Marked, Open, Opened, Ready, Reset, Shut};
        [
            Attach, Ready, Open, Opened, Data, Credit, Shut, Reset, Mark, Marked,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == byte)
    }

    const fn payload_fits(self, length: usize) -> bool {
        match self {
            Kind::Attach | Kind::Ready | Kind::Mark | Kind::Marked => length == 8,
            Kind::Open | Kind::Credit => length == 4,
            Kind::Data => length >= 1 && length <= MAX_PAYLOAD_BYTES,
            Kind::Opened | Kind::Shut | Kind::Reset => length == 0,
        }
    }
}

/// One link frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkFrame {
    /// Connection it belongs to, chosen by the host; 0 is the link itself.
    pub connection: u32,
    /// What it is.
    pub kind: Kind,
    /// Content; its length is checked against the kind.
    pub payload: Vec<u8>,
}

impl LinkFrame {
    /// A frame without content.
    #[must_use]
    pub fn bare(connection: u32, kind: Kind) -> LinkFrame {
        LinkFrame {
            connection,
            kind,
            payload: Vec::new(),
        }
    }

    /// A frame whose content is one number: a port or a grant.
    #[must_use]
    pub fn number(connection: u32, kind: Kind, number: u32) -> LinkFrame {
        LinkFrame {
            connection,
            kind,
            payload: number.to_be_bytes().to_vec(),
        }
    }

    /// Bytes of a connection; 1 to [`MAX_PAYLOAD_BYTES`].
    #[must_use]
    pub fn data(connection: u32, bytes: &[u8]) -> LinkFrame {
        LinkFrame {
            connection,
            kind: Kind::Data,
            payload: bytes.to_vec(),
        }
    }

    /// The nonce of an attach, a mark, or the answer to one.
    #[must_use]
    pub fn nonce(kind: Kind, nonce: u64) -> LinkFrame {
        LinkFrame {
            connection: 0,
            kind,
            payload: nonce.to_be_bytes().to_vec(),
        }
    }

    /// The content as a number, if it is four bytes.
    #[must_use]
    pub fn as_u32(&self) -> Option<u32> {
        Some(u32::from_be_bytes(self.payload.as_slice().try_into().ok()?))
    }

    /// The content as a nonce, if it is eight bytes.
    #[must_use]
    pub fn as_nonce(&self) -> Option<u64> {
        Some(u64::from_be_bytes(self.payload.as_slice().try_into().ok()?))
    }

    /// Appends the frame's bytes to `out`.
    ///
    /// # Panics
    /// If the payload does not fit the kind: that is a bug of the sender.
    pub fn encode(&self, out: &mut Vec<u8>) {
        assert!(
            self.kind.payload_fits(self.payload.len()),
            "a {:?} link frame cannot have {} bytes",
            self.kind,
            self.payload.len()
        );
        let length = u16::try_from(self.payload.len()).expect("the cap is below 64 KiB");
        out.extend_from_slice(&[self.kind as u8, 0]);
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&self.connection.to_be_bytes());
        out.extend_from_slice(&self.payload);
    }
}

/// Bytes that are not a link frame, or a frame that breaks the link's rules.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The header names no known kind, or its reserved byte is not zero.
    #[error("unknown link frame {kind:#04x} {reserved:#04x}")]
    UnknownKind {
        /// First byte.
        kind: u8,
        /// Second byte.
        reserved: u8,
    },
    /// The payload's length does not fit the kind.
    #[error("link frame of kind {kind:#04x} cannot have {length} bytes")]
    BadLength {
        /// The kind's byte.
        kind: u8,
        /// Length in the header.
        length: usize,
    },
    /// The peer opened or ended a connection twice.
    #[error("connection {connection} was opened or ended twice")]
    Repeated {
        /// The connection.
        connection: u32,
    },
    /// The peer sent more than it was granted.
    #[error("connection {connection} sent {excess} bytes more than it was granted")]
    WindowExceeded {
        /// The connection.
        connection: u32,
        /// Bytes over the grant.
        excess: u32,
    },
}

/// Turns a byte stream into link frames.
#[derive(Debug, Default)]
pub struct LinkDecoder {
    buffer: Vec<u8>,
    start: usize,
}

impl LinkDecoder {
    /// A decoder at the start of a stream.
    #[must_use]
    pub fn new() -> LinkDecoder {
        LinkDecoder::default()
    }

    /// Takes bytes as they arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.start);
        self.start = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, or `None` until more bytes are pushed.
    ///
    /// # Errors
    /// [`LinkError`] as soon as the header shows that no valid frame follows. The link cannot go
    /// on after that.
    pub fn next_frame(&mut self) -> Result<Option<LinkFrame>, LinkError> {
        let pending = &self.buffer[self.start..];
        let Some((header, rest)) = pending.split_first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let [kind, reserved, l0, l1, c0, c1, c2, c3] = *header;
        let kind = Kind::from_byte(kind)
            .filter(|_| reserved == 0)
            .ok_or(LinkError::UnknownKind { kind, reserved })?;
        let length = usize::from(u16::from_be_bytes([l0, l1]));
        if !kind.payload_fits(length) {
            return Err(LinkError::BadLength {
                kind: kind as u8,
                length,
            });
        }
        let Some(payload) = rest.get(..length) else {
            return Ok(None);
        };
        let frame = LinkFrame {
            connection: u32::from_be_bytes([c0, c1, c2, c3]),
            kind,
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

/// Looks for the [`Kind::Ready`] of one nonce in bytes that may begin anywhere in a frame.
///
/// A restored guest goes on in the middle of whatever it was sending. Nothing that it sent before
/// can contain the answer by accident, because the nonce was drawn afterwards.
#[derive(Debug)]
pub struct ReadyFinder {
    pattern: [u8; READY_BYTES],
    /// The last bytes seen, fewer than the pattern has.
    tail: Vec<u8>,
}

/// Bytes of a whole [`Kind::Ready`] frame.
const READY_BYTES: usize = HEADER_BYTES + 8;

impl ReadyFinder {
    /// Looks for the answer to the attach with this nonce.
    #[must_use]
    pub fn new(nonce: u64) -> ReadyFinder {
        let mut bytes = Vec::with_capacity(READY_BYTES);
        LinkFrame::nonce(Kind::Ready, nonce).encode(&mut bytes);
        ReadyFinder {
            pattern: bytes.as_slice().try_into().expect("a ready has this size"),
            tail: Vec::new(),
        }
    }

    /// Takes bytes as they arrived; once the answer is among them, gives the bytes after it.
    pub fn push(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        self.tail.extend_from_slice(bytes);
        let mut windows = self.tail.windows(READY_BYTES);
        if let Some(at) = windows.position(|window| window == self.pattern) {
            return Some(self.tail.split_off(at + READY_BYTES));
        }
        let old = self.tail.len().saturating_sub(READY_BYTES - 1);
        self.tail.drain(..old);
        None
    }
}

/// The flow control of one connection, seen from one side.
#[derive(Debug)]
pub struct Flow {
    connection: u32,
    may_send: u32,
    may_receive: u32,
    consumed: u32,
}

impl Flow {
    /// The state of a fresh connection.
    #[must_use]
    pub fn new(connection: u32) -> Flow {
        Flow {
            connection,
            may_send: WINDOW_BYTES,
            may_receive: WINDOW_BYTES,
            consumed: 0,
        }
    }

    /// How many bytes may be sent in the next frame.
    #[must_use]
    pub fn sendable(&self) -> usize {
        (self.may_send as usize).min(MAX_PAYLOAD_BYTES)
    }

    /// Bytes were sent.
    ///
    /// # Panics
    /// If they are more than [`Flow::sendable`]: that is a bug of the sender.
    pub fn sent(&mut self, bytes: usize) {
        let bytes = u32::try_from(bytes).expect("a frame is below 64 KiB");
        self.may_send = self
            .may_send
            .checked_sub(bytes)
            .expect("sent within the grant");
    }

    /// The peer granted more bytes.
    pub fn granted(&mut self, bytes: u32) {
        self.may_send = self.may_send.saturating_add(bytes).min(WINDOW_BYTES);
    }

    /// Bytes arrived.
    ///
    /// # Errors
    /// [`LinkError::WindowExceeded`] if the peer had no grant for them.
    pub fn received(&mut self, bytes: usize) -> Result<(), LinkError> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        match self.may_receive.checked_sub(bytes) {
            Some(rest) => {
                self.may_receive = rest;
                Ok(())
            }
            None => Err(LinkError::WindowExceeded {
                connection: self.connection,
                excess: bytes - self.may_receive,
            }),
        }
    }

    /// Bytes were passed on to their reader; gives the grant to send, once it is worth a frame.
    #[must_use]
    pub fn consume(&mut self, bytes: usize) -> Option<u32> {
        self.consumed += u32::try_from(bytes).expect("a frame is below 64 KiB");
        if self.consumed < WINDOW_BYTES / 4 {
            return None;
        }
        let grant = core::mem::take(&mut self.consumed);
        self.may_receive += grant;
        Some(grant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::collection::vec;
    use proptest::prelude::*;

    #[test]
    fn frames_survive_any_cut_of_the_stream() {
        let frames = vec![
            LinkFrame::nonce(Kind::Attach, 42),
            LinkFrame::number(1, Kind::Open, 5001),
            LinkFrame::data(1, &[7; 300]),
            LinkFrame::bare(1, Kind::Shut),
        ];
        let mut bytes = Vec::new();
        frames.iter().for_each(|frame| frame.encode(&mut bytes));
        for step in [1, 7, 8, 9, 1000] {
            let mut decoder = LinkDecoder::new();
            let mut got = Vec::new();
            for chunk in bytes.chunks(step) {
                decoder.push(chunk);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    got.push(frame);
                }
            }
            assert_eq!(got, frames, "step {step}");
        }
    }

    #[test]
    fn a_header_that_lies_is_refused() {
        let check = |header: [u8; HEADER_BYTES], expected: LinkError| {
            let mut decoder = LinkDecoder::new();
            decoder.push(&header);
            assert_eq!(decoder.next_frame(), Err(expected));
        };
        check(
            [0, 0, 0, 0, 0, 0, 0, 1],
            LinkError::UnknownKind {
                kind: 0,
                reserved: 0,
            },
        );
        check(
            [5, 1, 0, 1, 0, 0, 0, 1],
            LinkError::UnknownKind {
                kind: 5,
                reserved: 1,
            },
        );
        check(
            [5, 0, 0xff, 0xff, 0, 0, 0, 1],
            LinkError::BadLength {
                kind: 5,
                length: 0xffff,
            },
        );
        check(
            [5, 0, 0, 0, 0, 0, 0, 1],
            LinkError::BadLength { kind: 5, length: 0 },
        );
        check(
            [3, 0, 0, 5, 0, 0, 0, 1],
            LinkError::BadLength { kind: 3, length: 5 },
        );
    }

    #[test]
    fn a_peer_that_ignores_its_window_is_caught() {
        let mut flow = Flow::new(3);
        for _ in 0..WINDOW_BYTES as usize / MAX_PAYLOAD_BYTES {
            flow.received(MAX_PAYLOAD_BYTES).unwrap();
        }
        let error = flow.received(1).unwrap_err();
        assert_eq!(
            error,
            LinkError::WindowExceeded {
                connection: 3,
                excess: 1
            }
        );
    }

    #[test]
    fn a_reader_that_keeps_up_never_stalls_its_sender() {
        let (mut sender, mut receiver) = (Flow::new(1), Flow::new(1));
        for _ in 0..100 {
            let bytes = sender.sendable();
            assert_eq!(bytes, MAX_PAYLOAD_BYTES);
            sender.sent(bytes);
            receiver.received(bytes).unwrap();
            if let Some(grant) = receiver.consume(bytes) {
                sender.granted(grant);
            }
        }
    }

    #[test]
    fn the_finder_keeps_less_than_one_answer() {
        let mut finder = ReadyFinder::new(7);
        for _ in 0..100 {
            assert_eq!(finder.push(&[2; 1000]), None);
            assert!(finder.tail.len() < READY_BYTES);
        }
    }

    proptest! {
        #[test]
        fn an_answer_is_found_after_any_rest_of_an_earlier_life(
            payloads in vec(vec(any::<u8>(), 1..300), 1..5),
            cut in any::<prop::sample::Index>(),
            step in 1..64usize,
        ) {
            // What the guest was sending, from the middle of a frame on.
            let mut sent = Vec::new();
            for payload in &payloads {
                LinkFrame::data(3, payload).encode(&mut sent);
            }
            LinkFrame::nonce(Kind::Ready, 41).encode(&mut sent);
            let mut stream = sent.split_off(cut.index(sent.len()));
            LinkFrame::nonce(Kind::Ready, 42).encode(&mut stream);
            let after = [9, 8, 7];
            stream.extend_from_slice(&after);

            let mut finder = ReadyFinder::new(42);
            let mut rest: Option<Vec<u8>> = None;
            for chunk in stream.chunks(step) {
                match &mut rest {
                    Some(rest) => rest.extend_from_slice(chunk),
                    None => rest = finder.push(chunk),
                }
            }
            prop_assert_eq!(rest.as_deref(), Some(&after[..]));
        }

        #[test]
        fn fuzz_decoder_reencodes_what_it_took_and_holds_less_than_a_frame(
            parts in vec(prop_oneof![
                1 => vec(any::<u8>(), 0..20),
                6 => (0..12u8, any::<u32>(), vec(any::<u8>(), 0..300)).prop_map(
                    |(kind, connection, payload)| {
                        let mut bytes = alloc::vec![kind, 0];
                        bytes.extend_from_slice(&(payload.len() as u16).to_be_bytes());
                        bytes.extend_from_slice(&connection.to_be_bytes());
                        bytes.extend_from_slice(&payload);
                        bytes
                    },
                ),
            ], 0..12),
            step in 1..64usize,
        ) {
            let bytes = parts.concat();
            let mut decoder = LinkDecoder::new();
            let mut encoded = Vec::new();
            let mut failed = false;
            for chunk in bytes.chunks(step) {
                decoder.push(chunk);
                while let Ok(Some(frame)) = decoder.next_frame() {
                    frame.encode(&mut encoded);
                }
                if decoder.next_frame().is_err() {
                    failed = true;
                    break;
                }
                prop_assert!(decoder.pending() < HEADER_BYTES + MAX_PAYLOAD_BYTES);
            }
            prop_assert!(bytes.starts_with(&encoded));
            prop_assert!(failed || encoded.len() + decoder.pending() == bytes.len());
        }
    }
}
