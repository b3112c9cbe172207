//! What no sandbox reaches unless a rule names it.
//!
//! Sources: IANA, "IPv4 Special-Purpose Address Registry" (RFC 6890 and what updates it); RFC 1918, RFC
//! 6598, RFC 3927, RFC 5771; the metadata addresses are those that the documentation of each cloud gives.

use std::net::Ipv4Addr;

use super::prefix::Prefix;

/// How a range can be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// By no rule.
    Never,
    /// By a rule for this very address or range.
    Exactly,
    /// By a rule for an address or a range inside of it.
    Inside,
}

/// A range that is blocked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// Its addresses.
    pub prefix: Prefix,
    /// What opens it.
    pub opened: Opened,
    /// What it is, for messages.
    pub what: &'static str,
}

const fn range(
    a: u8,
    b: u8,
    c: u8,
    d: u8,
    bits: u8,
    opened: Opened,
    what: &'static str,
) -> Blocked {
    let prefix = Prefix::of(Ipv4Addr::new(a, b, c, d), bits);
    Blocked {
        prefix,
        opened,
        what,
    }
}

/// The ranges of every host.
pub(super) const RANGES: &[Blocked] = &[
    range(0, 0, 0, 0, 8, Opened::Never, "\"this network\" (RFC 791)"),
    range(10, 0, 0, 0, 8, Opened::Inside, "private (RFC 1918)"),
    range(
        100,
        64,
        0,
        0,
        10,
        Opened::Inside,
        "shared by a carrier (RFC 6598)",
    ),
    range(
        100,
        100,
        100,
        200,
        32,
        Opened::Exactly,
        "metadata of a cloud",
    ),
    range(127, 0, 0, 0, 8, Opened::Never, "loopback (RFC 1122)"),
    range(168, 63, 129, 16, 32, Opened::Exactly, "metadata of a cloud"),
    range(169, 254, 0, 0, 16, Opened::Inside, "link-local (RFC 3927)"),
    range(
        169,
        254,
        169,
        123,
        32,
        Opened::Exactly,
        "metadata of a cloud",
    ),
    range(
        169,
        254,
        169,
        253,
        32,
        Opened::Exactly,
        "metadata of a cloud",
    ),
    range(
        169,
        254,
        169,
        254,
        32,
        Opened::Exactly,
        "metadata of a cloud",
    ),
    range(169, 254, 170, 2, 32, Opened::Exactly, "metadata of a cloud"),
    range(
        169,
        254,
        170,
        23,
        32,
        Opened::Exactly,
        "metadata of a cloud",
    ),
    range(172, 16, 0, 0, 12, Opened::Inside, "private (RFC 1918)"),
    range(
        192,
        0,
        0,
        0,
        24,
        Opened::Never,
        "of the sandbox's own link (RFC 6890)",
    ),
    range(192, 0, 0, 192, 32, Opened::Exactly, "metadata of a cloud"),
    range(
        192,
        88,
        99,
        0,
        24,
        Opened::Never,
        "of old IPv6 relays (RFC 7526)",
    ),
    range(192, 168, 0, 0, 16, Opened::Inside, "private (RFC 1918)"),
    range(
        198,
        18,
        0,
        0,
        15,
        Opened::Never,
        "of links between sandboxes and host (RFC 2544)",
    ),
    range(224, 0, 0, 0, 4, Opened::Never, "multicast (RFC 5771)"),
    range(
        240,
        0,
        0,
        0,
        4,
        Opened::Never,
        "reserved (RFC 1112), or broadcast (RFC 919)",
    ),
];

impl Blocked {
    /// An address of the host itself.
    #[must_use]
    pub fn host(address: Ipv4Addr) -> Self {
        let prefix = Prefix::of(address, 32);
        Self {
            prefix,
            opened: Opened::Exactly,
            what: "the host's own address",
        }
    }

    /// Whether a rule for these addresses opens what it shares with this range.
    pub(super) fn is_opened_by(&self, named: Prefix) -> bool {
        match self.opened {
            Opened::Never => false,
            Opened::Exactly => named == self.prefix,
            Opened::Inside => self.prefix.contains(named),
        }
    }
}

/// Whether a rule for these addresses says something about the range: it opens it, or a part of it that has
/// an entry of its own.
pub(super) fn opens(range: &Blocked, named: Prefix) -> bool {
    let inner = |other: &Blocked| range.prefix.contains(other.prefix) && other.is_opened_by(named);
    RANGES.iter().any(inner)
}
