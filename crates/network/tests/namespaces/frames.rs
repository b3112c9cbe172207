//! Frames made by hand, right but for what a test wants to be wrong.

use std::net::Ipv4Addr;

use firelane_network::plan::{GATEWAY_MAC, GUEST, GUEST_MAC};

/// An Ethernet frame of the guest.
pub(crate) fn ethernet(kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = [GATEWAY_MAC, GUEST_MAC].concat();
    frame.extend(kind.to_be_bytes());
    frame.extend(payload);
    frame
}

/// An IPv4 packet of the guest.
pub(crate) fn ipv4(to: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    packet(GUEST, to, protocol, 0, payload)
}

/// An IPv4 packet with a field about fragments.
pub(crate) fn packet(
    from: Ipv4Addr,
    to: Ipv4Addr,
    protocol: u8,
    fragment: u16,
    payload: &[u8],
) -> Vec<u8> {
    let length = u16::try_from(20 + payload.len()).unwrap();
    let mut header = vec![0x45, 0];
    header.extend(length.to_be_bytes());
    header.extend([0, 1]);
    header.extend(fragment.to_be_bytes());
    header.extend([64, protocol, 0, 0]);
    header.extend(from.octets());
    header.extend(to.octets());
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    header.extend(payload);
    header
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |byte| u32::from(*byte)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}

fn with_sum(to: Ipv4Addr, protocol: u8, mut segment: Vec<u8>, at: usize) -> Vec<u8> {
    let mut pseudo = [GUEST.octets(), to.octets()].concat();
    pseudo.extend([0, protocol]);
    pseudo.extend(u16::try_from(segment.len()).unwrap().to_be_bytes());
    pseudo.extend(&segment);
    let sum = checksum(&pseudo);
    segment[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    segment
}

/// The frame that begins a TCP connection.
pub(crate) fn syn(from_port: u16, to: Ipv4Addr, port: u16) -> Vec<u8> {
    let mut segment = [from_port.to_be_bytes(), port.to_be_bytes()].concat();
    segment.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0]);
    ethernet(0x0800, &ipv4(to, 6, &with_sum(to, 6, segment, 16)))
}

/// A frame with a UDP datagram.
pub(crate) fn udp(from_port: u16, to: Ipv4Addr, port: u16, payload: &[u8]) -> Vec<u8> {
    let mut segment = [from_port.to_be_bytes(), port.to_be_bytes()].concat();
    segment.extend(u16::try_from(8 + payload.len()).unwrap().to_be_bytes());
    segment.extend([0, 0]);
    segment.extend(payload);
    ethernet(0x0800, &ipv4(to, 17, &with_sum(to, 17, segment, 6)))
}

/// A frame with ARP about this sender and target.
pub(crate) fn arp(operation: u8, mac: [u8; 6], sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut payload = vec![0, 1, 8, 0, 6, 4, 0, operation];
    payload.extend(mac);
    payload.extend(sender.octets());
    payload.extend([0; 6]);
    payload.extend(target.octets());
    ethernet(0x0806, &payload)
}
