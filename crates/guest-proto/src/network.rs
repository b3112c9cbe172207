//! The addresses of a guest that has a network, which are the same in every guest.
//!
//! Each sandbox has a network namespace of its own on the host, so nothing tells them apart and nothing has
//! to. The link is that of RFC 6333, section 5.7 (192.0.0.0/29), which routers never forward and nobody
//! numbers a network with.

use core::net::Ipv4Addr;

/// The guest's device.
pub const DEVICE: &str = "eth0";
/// The guest's address.
pub const GUEST: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 2);
/// Its gateway, where the host's resolver listens too.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 1);
/// Bits of the prefix that both are in.
pub const PREFIX: u8 = 30;
/// The guest's Ethernet address: locally administered, unicast (IEEE 802, clause 8.4).
pub const GUEST_MAC: [u8; 6] = [0x02, 0xf1, 0x00, 0x00, 0x00, 0x02];
