//! The guest's end of vsock: packets in, packets out, with a session for each connection.
//!
//! ```text
//!   REQUEST ──> RESPONSE, open ── RW, credit ──> session over or SHUTDOWN ──> closing ── RST ──> gone
//!                              ── RST, reset of the transport ──────────────────────────────> gone
//! ```
//!
//! Only the host is answered (CID 2), and only on [`SESSION_PORT`]. A restored machine has lost its
//! connections: the device says so by an event, and [`Host::reset`] forgets them.
//!
//! Source: Virtual I/O Device (VIRTIO) 1.2, section 5.10, "Socket Device".

mod header;

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use firelane_guest_proto::SESSION_PORT;

use self::header::{
    Header, OP_CREDIT_REQUEST, OP_CREDIT_UPDATE, OP_REQUEST, OP_RESPONSE, OP_RST, OP_RW,
    OP_SHUTDOWN, SHUTDOWN_BOTH, STREAM,
};
use crate::guest::{Guest, Machine};
use crate::session::Session;

pub use self::header::HEADER_BYTES;

/// CID of the host.
const HOST_CID: u64 = 2;
/// Connections at once.
pub const MAX_CONNECTIONS: usize = 8;
/// Room of a connection for what it receives, in bytes.
const ROOM: u32 = 128 << 10;
/// Answers that wait before no more packets are taken.
const MAX_REPLIES: usize = 64;

/// The host, as the guest's connections to it.
#[derive(Debug)]
pub struct Host {
    /// The guest's own CID.
    cid: u64,
    connections: Vec<Connection>,
    replies: VecDeque<Header>,
    /// Whose turn it is to send.
    turn: usize,
}

#[derive(Debug)]
struct Connection {
    port: u32,
    session: Session,
    /// Bytes that the session has not taken.
    received: Vec<u8>,
    /// Bytes that it has, modulo 2^32; and what the host knows of that.
    taken: u32,
    told: u32,
    /// Bytes that were sent, modulo 2^32; and what the host has said of its room.
    sent: u32,
    peer_room: u32,
    peer_taken: u32,
    /// The host was asked to forget the connection.
    closing: bool,
}

impl Host {
    /// No connections yet.
    #[must_use]
    pub fn new(cid: u64) -> Host {
        Host {
            cid,
            connections: Vec::new(),
            replies: VecDeque::new(),
            turn: 0,
        }
    }

    /// Whether packets are taken now.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.replies.len() < MAX_REPLIES
    }

    /// The transport was reset: all connections are gone, and the guest may have another CID.
    pub fn reset(&mut self, cid: u64, guest: &mut Guest) {
        self.cid = cid;
        self.replies.clear();
        for mut connection in self.connections.drain(..) {
            connection.session.end(guest);
        }
    }

    /// Takes a packet. What is none is passed over: there is nobody to tell.
    pub fn receive(&mut self, packet: &[u8], guest: &mut Guest) {
        let Some((header, payload)) = Header::parse(packet) else {
            return;
        };
        if header.src_cid != HOST_CID || header.dst_cid != self.cid {
            return;
        }
        let known = header.kind == STREAM && header.dst_port == SESSION_PORT;
        let at = self
            .connections
            .iter()
            .position(|connection| known && connection.port == header.src_port);
        let Some(at) = at else {
            self.unknown(&header, known);
            return;
        };
        let connection = &mut self.connections[at];
        connection.peer_room = header.buf_alloc;
        connection.peer_taken = header.fwd_cnt;
        let kept = match header.op {
            OP_RW => connection.take_in(payload),
            OP_CREDIT_UPDATE => true,
            OP_CREDIT_REQUEST => {
                let update = connection.header(OP_CREDIT_UPDATE, self.cid);
                self.replies.push_back(update);
                true
            }
            // A shutdown of one direction ends a session as well: it needs both. A second request for
            // the same connection, or an answer to none, makes no sense.
            _ => false,
        };
        if !kept {
            if header.op != OP_RST {
                let reset = connection.header(OP_RST, self.cid);
                self.replies.push_back(reset);
            }
            self.connections.swap_remove(at).session.end(guest);
        }
    }

    /// A packet of no connection: one is opened, or the host is told that there is none.
    fn unknown(&mut self, header: &Header, known: bool) {
        if header.op == OP_RST {
            return;
        }
        if !known || header.op != OP_REQUEST || self.connections.len() >= MAX_CONNECTIONS {
            self.replies.push_back(Header {
                src_cid: self.cid,
                dst_cid: HOST_CID,
                src_port: header.dst_port,
                dst_port: header.src_port,
                kind: header.kind,
                op: OP_RST,
                ..Header::default()
            });
            return;
        }
        let mut connection = Connection {
            port: header.src_port,
            session: Session::default(),
            received: Vec::new(),
            taken: 0,
            told: 0,
            sent: 0,
            peer_room: header.buf_alloc,
            peer_taken: header.fwd_cnt,
            closing: false,
        };
        let response = connection.header(OP_RESPONSE, self.cid);
        self.replies.push_back(response);
        self.connections.push(connection);
    }

    /// Lets all sessions go on; gives whether one did.
    pub fn work(&mut self, guest: &mut Guest, machine: &mut dyn Machine) -> bool {
        let mut moved = false;
        for connection in &mut self.connections {
            if !connection.received.is_empty() && connection.session.wants_bytes() {
                connection.session.receive(&connection.received);
                let length = u32::try_from(connection.received.len()).unwrap_or(u32::MAX);
                connection.taken = connection.taken.wrapping_add(length);
                connection.received.clear();
                moved = true;
            }
            if !connection.session.is_over() {
                moved |= connection.session.work(guest, machine);
            }
        }
        moved
    }

    /// Writes the next packet that is to be sent into `buffer`, which holds more than a header; its
    /// length.
    pub fn next_packet(&mut self, buffer: &mut [u8]) -> Option<usize> {
        if let Some(header) = self.replies.pop_front() {
            return put(buffer, &header, &[]);
        }
        let count = self.connections.len();
        for _ in 0..count {
            self.turn = (self.turn + 1) % count;
            let connection = &mut self.connections[self.turn];
            let ready = connection.session.output().len();
            let room = usize::try_from(connection.credit()).unwrap_or(usize::MAX);
            let length = ready
                .min(room)
                .min(buffer.len().saturating_sub(HEADER_BYTES));
            if length > 0 {
                let mut header = connection.header(OP_RW, self.cid);
                header.len = u32::try_from(length).unwrap_or(0);
                connection.sent = connection.sent.wrapping_add(header.len);
                let packet = put(buffer, &header, &connection.session.output()[..length]);
                connection.session.sent(length);
                return packet;
            }
            if ready == 0 && connection.session.is_over() && !connection.closing {
                connection.closing = true;
                let mut header = connection.header(OP_SHUTDOWN, self.cid);
                header.flags = SHUTDOWN_BOTH;
                return put(buffer, &header, &[]);
            }
            if connection.taken.wrapping_sub(connection.told) >= ROOM / 2 {
                let header = connection.header(OP_CREDIT_UPDATE, self.cid);
                return put(buffer, &header, &[]);
            }
        }
        None
    }
}

impl Connection {
    /// Keeps what came; false if it is more than there is room for.
    fn take_in(&mut self, payload: &[u8]) -> bool {
        if self.closing || self.session.is_over() {
            // Nobody reads it.
            return true;
        }
        if self.received.len() + payload.len() > ROOM as usize {
            return false;
        }
        self.received.extend_from_slice(payload);
        true
    }

    /// Bytes that the host has room for.
    fn credit(&self) -> u32 {
        let unread = self.sent.wrapping_sub(self.peer_taken);
        self.peer_room.saturating_sub(unread)
    }

    /// A header of this connection; the host knows from it what was taken.
    fn header(&mut self, op: u16, cid: u64) -> Header {
        self.told = self.taken;
        Header {
            src_cid: cid,
            dst_cid: HOST_CID,
            src_port: SESSION_PORT,
            dst_port: self.port,
            len: 0,
            kind: STREAM,
            op,
            flags: 0,
            buf_alloc: ROOM,
            fwd_cnt: self.taken,
        }
    }
}

fn put(buffer: &mut [u8], header: &Header, payload: &[u8]) -> Option<usize> {
    let length = HEADER_BYTES + payload.len();
    let packet = buffer.get_mut(..length)?;
    packet[..HEADER_BYTES].copy_from_slice(&header.encode());
    packet[HEADER_BYTES..].copy_from_slice(payload);
    Some(length)
}

#[cfg(test)]
mod tests;
