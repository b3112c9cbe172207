//! The addresses, which are the same in every sandbox.
//!
//! The guest's side of them is in [`firelane_guest_proto::network`].
//!
//! The way out of the namespace is a pair of devices with two addresses of RFC 2544 (198.18.0.0/15),
//! which do differ; no rule can open that range.

use std::net::Ipv4Addr;

pub use firelane_guest_proto::network::{GATEWAY, GUEST, GUEST_MAC, PREFIX};

/// The gateway's Ethernet address.
pub const GATEWAY_MAC: [u8; 6] = [0x02, 0xf1, 0x00, 0x00, 0x00, 0x01];
/// The resolver's port.
pub const DNS_PORT: u16 = 53;
/// Largest packet, in bytes.
pub const MTU: u16 = 1500;

/// The tap, inside.
pub const TAP: &str = "tap0";
/// The way out, inside.
pub(crate) const WAY_OUT: &str = "out0";
/// Start of the names of the ways out, outside: with it, they are recognised as ours.
pub(crate) const OUTSIDE: &str = "fln";

/// The two addresses of a way out: outside, then inside, a prefix of 31 bits (RFC 3021). Numbers that are
/// 65536 apart get the same ones.
pub(crate) fn link(number: u32) -> (Ipv4Addr, Ipv4Addr) {
    let first = u32::from(Ipv4Addr::new(198, 18, 0, 0)) + ((number & 0xffff) << 1);
    (Ipv4Addr::from(first), Ipv4Addr::from(first + 1))
}

/// An Ethernet address as it is written.
#[must_use]
pub fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_stay_in_their_range_and_differ() {
        let text = |number| {
            let (outside, inside) = link(number);
            format!("{outside} {inside}")
        };
        assert_eq!(text(0), "198.18.0.0 198.18.0.1");
        assert_eq!(text(0xffff), "198.19.255.254 198.19.255.255");
        assert_eq!(text(0x1_0002), text(2));
        assert_eq!(mac_text(GUEST_MAC), "02:f1:00:00:00:02");
    }
}
