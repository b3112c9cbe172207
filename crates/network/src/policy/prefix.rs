//! A range of IPv4 addresses that share their first bits (RFC 4632).

use std::fmt;
use std::net::Ipv4Addr;

/// A range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    bits: u8,
    address: Ipv4Addr,
}

impl Prefix {
    /// The range around an address, `bits` of which are fixed.
    ///
    /// # Panics
    /// If there are more than 32 bits.
    #[must_use]
    pub const fn of(address: Ipv4Addr, bits: u8) -> Self {
        assert!(bits <= 32, "an address has 32 bits");
        let address = Ipv4Addr::from_bits(address.to_bits() & mask(bits));
        Self { bits, address }
    }

    /// Its first address.
    #[must_use]
    pub const fn address(self) -> Ipv4Addr {
        self.address
    }

    /// How many bits are fixed.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.bits
    }

    /// Whether all of the other is in this one.
    #[must_use]
    pub const fn contains(self, other: Prefix) -> bool {
        self.bits <= other.bits && self.has(other.address)
    }

    /// Whether the address is in it.
    #[must_use]
    pub const fn has(self, address: Ipv4Addr) -> bool {
        address.to_bits() & mask(self.bits) == self.address.to_bits()
    }
}

const fn mask(bits: u8) -> u32 {
    match 32 - bits {
        32 => 0,
        zeros => u32::MAX << zeros,
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}
