//! What a fence has counted.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::Serialize;

/// Most flows and refusals that are listed.
pub const MAX_LISTED: usize = 1024;

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// What is counted, in the order of `enum count` in `bpf/fence.c`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Count { $($(#[$doc])* $name,)* }

        impl Count {
            /// All of them.
            pub const ALL: &[Count] = &[$(Count::$name),*];

            /// Its name in reports.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Count::$name => $text),* }
            }
        }
    };
}

counts! {
    /// Frames that the guest sent and that went on.
    PacketsOut = "packets_out",
    /// Their bytes.
    BytesOut = "bytes_out",
    /// Frames that the guest got.
    PacketsIn = "packets_in",
    /// Their bytes.
    BytesIn = "bytes_in",
    /// Flows that began.
    Flows = "flows",
    /// Refused: neither ARP nor IPv4 nor IPv6.
    Ethertype = "ethertype",
    /// Refused: IPv6.
    Ipv6 = "ipv6",
    /// Refused: not from the guest's Ethernet address.
    SourceMac = "source_mac",
    /// Refused: not from the guest's address.
    SourceAddress = "source_address",
    /// Refused: ARP that is not about the guest and its gateway.
    Arp = "arp",
    /// Refused: too short, or with IPv4 options.
    Malformed = "malformed",
    /// Refused: a fragment.
    Fragment = "fragment",
    /// Refused: neither TCP nor UDP.
    Protocol = "protocol",
    /// Refused: no rule allows it.
    Denied = "denied",
    /// Refused: it leads to a blocked range.
    Blocked = "blocked",
    /// Refused: too many bytes in a second.
    Rate = "rate",
    /// Refused: too many new flows in a second.
    FlowRate = "flow_rate",
    /// Refused: too many flows at once.
    FlowTable = "flow_table",
    /// Refused: to the guest, and not part of a flow that it began.
    Unsolicited = "unsolicited",
}

impl Count {
    /// Whether it counts what was refused.
    #[must_use]
    pub fn is_refusal(self) -> bool {
        self > Count::Flows
    }
}

impl Serialize for Count {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// Flows that began, or packets that were refused, with the same other side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Meeting {
    /// What became of them.
    pub count: Count,
    /// The other side; 0.0.0.0 where there was none.
    pub address: Ipv4Addr,
    /// Its port; 0 where there was none.
    pub port: u16,
    /// The number of the protocol (IANA, "Protocol Numbers").
    pub protocol: u8,
    /// How many.
    pub times: u64,
}

/// What a fence has counted since it was raised.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// How often; those that never happened are left out.
    pub counts: BTreeMap<Count, u64>,
    /// Flows that began and packets that were refused, [`MAX_LISTED`] of each at most.
    pub meetings: Vec<Meeting>,
}

impl Tally {
    /// How often that happened.
    #[must_use]
    pub fn of(&self, count: Count) -> u64 {
        self.counts.get(&count).copied().unwrap_or_default()
    }

    /// How many packets were refused.
    #[must_use]
    pub fn refused(&self) -> u64 {
        let refused = self.counts.iter().filter(|(count, _)| count.is_refusal());
        refused.map(|(_, times)| times).sum()
    }
}
