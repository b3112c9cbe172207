//! The device's side: what it may give, and what it gets.

use super::*;
use crate::session::fake::Fake;
use alloc::vec;
use firelane_guest_proto::frame::{Decoder, Frame, Kind};
use firelane_guest_proto::message::{ExecSpec, Hello, Limits, Program, to_frame};
use proptest::collection::vec as vec_of;
use proptest::prelude::*;

const CID: u64 = 3;

/// The device's side.
struct Device {
    host: Host,
    guest: Guest,
    machine: Fake,
}

impl Device {
    fn new() -> Device {
        Device {
            host: Host::new(CID),
            guest: Guest::default(),
            machine: Fake::default(),
        }
    }

    /// Gives the guest a packet; all that it answers.
    fn give(&mut self, header: Header, payload: &[u8]) -> Vec<(Header, Vec<u8>)> {
        let len = u32::try_from(payload.len()).unwrap();
        let mut packet = Header { len, ..header }.encode().to_vec();
        packet.extend_from_slice(payload);
        self.host.receive(&packet, &mut self.guest);
        self.listen()
    }

    fn listen(&mut self) -> Vec<(Header, Vec<u8>)> {
        let mut packets = Vec::new();
        let mut buffer = vec![0; 1000];
        loop {
            let moved = self.host.work(&mut self.guest, &mut self.machine);
            let Some(length) = self.host.next_packet(&mut buffer) else {
                if moved {
                    continue;
                }
                return packets;
            };
            let (header, payload) = Header::parse(&buffer[..length]).unwrap();
            packets.push((header, payload.to_vec()));
        }
    }

    fn connect(&mut self, port: u32) {
        assert_eq!(
            ops(&self.give(packet(port, OP_REQUEST), &[])),
            [OP_RESPONSE]
        );
    }
}

/// A packet of the host's, with plenty of room.
fn packet(port: u32, op: u16) -> Header {
    Header {
        src_cid: HOST_CID,
        dst_cid: CID,
        src_port: port,
        dst_port: SESSION_PORT,
        kind: STREAM,
        op,
        buf_alloc: 1 << 20,
        ..Header::default()
    }
}

fn hello() -> Vec<u8> {
    let mut bytes = Vec::new();
    to_frame(0, Kind::Hello, &Hello::ours())
        .unwrap()
        .encode(&mut bytes);
    bytes
}

/// A request for a session that takes everything and says nothing.
fn silent() -> Vec<u8> {
    let spec = ExecSpec {
        trace_id: "t".into(),
        program: Program::Command {
            argv: vec!["silent".into()],
        },
        env: vec![],
        cwd: None,
        limits: Limits::default(),
        pty: None,
    };
    let mut bytes = Vec::new();
    to_frame(1, Kind::Exec, &spec).unwrap().encode(&mut bytes);
    bytes
}

fn pings(count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let ping = Frame::new(0, Kind::Ping, b"firelane".to_vec());
    (0..count).for_each(|_| ping.encode(&mut bytes));
    bytes
}

fn ops(packets: &[(Header, Vec<u8>)]) -> Vec<u16> {
    packets.iter().map(|(header, _)| header.op).collect()
}

#[test]
fn a_header_is_what_the_standard_says() {
    let header = Header {
        src_cid: 2,
        dst_cid: 3,
        src_port: 0x0102_0304,
        dst_port: 5001,
        len: 2,
        kind: 1,
        op: 5,
        flags: 3,
        buf_alloc: 9,
        fwd_cnt: 8,
    };
    let bytes = [
        2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, // cids
        4, 3, 2, 1, 0x89, 0x13, 0, 0, 2, 0, 0, 0, // ports, length
        1, 0, 5, 0, 3, 0, 0, 0, 9, 0, 0, 0, 8, 0, 0, 0, // type, op, flags, credit
    ];
    assert_eq!(header.encode(), bytes);
    assert_eq!(Header::parse(&bytes), None);
    let whole = [&bytes[..], &[7, 7, 7]].concat();
    assert_eq!(Header::parse(&whole), Some((header, &[7, 7][..])));
}

#[test]
fn a_connection_carries_a_session() {
    let mut device = Device::new();
    device.connect(9);
    let answers = device.give(packet(9, OP_RW), &hello());
    assert_eq!(ops(&answers), [OP_RW]);
    let (header, payload) = &answers[0];
    assert_eq!((header.dst_port, header.fwd_cnt), (9, 18));
    let mut decoder = Decoder::new();
    decoder.push(payload);
    let frame = decoder.next_frame().unwrap().unwrap();
    assert_eq!(frame.kind, Kind::Welcome);
}

#[test]
fn only_the_host_and_the_session_port_are_answered() {
    let mut device = Device::new();
    let wrong = Header {
        dst_port: 5000,
        ..packet(9, OP_REQUEST)
    };
    assert_eq!(ops(&device.give(wrong, &[])), [OP_RST]);
    assert_eq!(ops(&device.give(packet(9, OP_RW), b"x")), [OP_RST]);
    let datagram = Header {
        kind: 3,
        ..packet(9, OP_REQUEST)
    };
    assert_eq!(ops(&device.give(datagram, &[])), [OP_RST]);
    let stranger = Header {
        src_cid: 7,
        ..packet(9, OP_REQUEST)
    };
    assert_eq!(device.give(stranger, &[]), []);
    assert_eq!(device.give(packet(9, OP_RST), &[]), []);
}

#[test]
fn a_guest_that_is_full_refuses_one_more_connection_and_goes_on() {
    let mut device = Device::new();
    (1..=MAX_CONNECTIONS as u32).for_each(|port| device.connect(port));
    assert_eq!(ops(&device.give(packet(99, OP_REQUEST), &[])), [OP_RST]);
    assert_eq!(ops(&device.give(packet(1, OP_SHUTDOWN), &[])), [OP_RST]);
    device.connect(99);
}

#[test]
fn no_more_is_sent_than_the_host_has_room_for() {
    let mut device = Device::new();
    let small = Header {
        buf_alloc: 10,
        ..packet(9, OP_REQUEST)
    };
    device.give(small, &[]);
    let few = Header { op: OP_RW, ..small };
    let answers = device.give(few, &hello());
    assert_eq!(answers[0].1.len(), 10);
    assert_eq!(answers.len(), 1);
    let more = Header {
        op: OP_CREDIT_UPDATE,
        fwd_cnt: 4,
        ..small
    };
    let answers = device.give(more, &[]);
    assert_eq!(answers[0].1.len(), 4);
}

#[test]
fn what_is_taken_is_told_and_too_much_ends_the_connection() {
    let mut device = Device::new();
    device.connect(9);
    device.give(packet(9, OP_RW), &hello());
    device.give(packet(9, OP_RW), &silent());
    let answers = device.give(packet(9, OP_RW), &vec![0; ROOM as usize]);
    assert_eq!(ops(&answers).last(), Some(&OP_CREDIT_UPDATE));
    let answers = device.give(packet(9, OP_CREDIT_REQUEST), &[]);
    assert_eq!(ops(&answers), [OP_CREDIT_UPDATE]);
    let answers = device.give(packet(9, OP_RW), &vec![0; ROOM as usize + 1]);
    assert_eq!(ops(&answers), [OP_RST]);
}

#[test]
fn a_host_that_does_not_read_is_not_read_from() {
    let mut device = Device::new();
    let closed = Header {
        buf_alloc: 0,
        ..packet(9, OP_REQUEST)
    };
    device.give(closed, &[]);
    let data = Header {
        op: OP_RW,
        ..closed
    };
    device.give(data, &hello());
    let flood = pings(5000);
    let mut accepted = 0;
    while ops(&device.give(data, &flood)) != [OP_RST] {
        accepted += 1;
        assert!(accepted < 10, "a flood is held without bound");
    }
    // It got in until the room was full, and no further.
    assert!(accepted >= 1);
}

#[test]
fn a_session_that_ends_says_why_before_its_connection_does() {
    let mut device = Device::new();
    device.connect(9);
    let answers = device.give(packet(9, OP_RW), &[0xff; 12]);
    assert_eq!(ops(&answers), [OP_RW, OP_SHUTDOWN]);
    assert_eq!(answers[1].0.flags, SHUTDOWN_BOTH);
    assert_eq!(device.give(packet(9, OP_RW), b"more"), []);
    assert_eq!(device.give(packet(9, OP_RST), &[]), []);
    device.connect(9);
}

#[test]
fn a_reset_transport_forgets_connections_and_listens() {
    let mut device = Device::new();
    device.connect(9);
    device.give(packet(9, OP_RW), &hello());
    device.host.reset(4, &mut device.guest);
    let again = Header {
        dst_cid: 4,
        ..packet(9, OP_REQUEST)
    };
    let answers = device.give(again, &[]);
    assert_eq!(ops(&answers), [OP_RESPONSE]);
    assert_eq!(answers[0].0.src_cid, 4);
}

proptest! {
    #[test]
    fn fuzz_no_packet_is_too_strange(
        packets in vec_of(
            (0..4_u32, 0..9_u16, any::<bool>(), vec_of(0..40_u8, 0..60), any::<[u32; 2]>()),
            0..60,
        ),
        raw in vec_of(any::<u8>(), 0..60),
    ) {
        let mut device = Device::new();
        device.host.receive(&raw, &mut device.guest);
        for (port, op, greeting, payload, [buf_alloc, fwd_cnt]) in packets {
            let header = Header { buf_alloc, fwd_cnt, ..packet(port, op) };
            let payload = if greeting { hello() } else { payload };
            device.give(header, &payload);
            prop_assert!(device.host.connections.len() <= MAX_CONNECTIONS);
            prop_assert!(device.host.has_room());
        }
    }
}
