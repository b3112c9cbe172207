//! One rule: what may be reached.
//!
//! ```text
//! rule     = [ ( "tcp" | "udp" ) ":" ] place ":" ports          without a protocol: tcp
//! place    = address [ "/" bits ] | name | "*." name            "*.": any name below, not the name itself
//! ports    = port | port "-" port | "*"
//! ```

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::prefix::Prefix;

/// Longest name, in bytes, and longest label of one (RFC 1035, section 2.3.4).
const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;

/// What runs on top of IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
}

impl Protocol {
    /// Its number in the header (IANA, "Protocol Numbers").
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
        }
    }

    /// Its name in rules.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        }
    }
}

/// Ports of one protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// The protocol.
    pub protocol: Protocol,
    /// The first port.
    pub first: u16,
    /// The last port.
    pub last: u16,
}

impl Span {
    /// Whether the port is among them.
    #[must_use]
    pub fn has(self, protocol: Protocol, port: u16) -> bool {
        self.protocol == protocol && (self.first..=self.last).contains(&port)
    }
}

/// Where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// At these addresses.
    Addresses(Prefix),
    /// At those that this name has, in small letters.
    Name(String),
    /// At those of names that end in a dot and this one.
    Below(String),
}

impl Place {
    /// Whether a name in small letters, without a dot at its end, is meant.
    #[must_use]
    pub fn names(&self, name: &str) -> bool {
        match self {
            Place::Addresses(_) => false,
            Place::Name(own) => own == name,
            Place::Below(above) => name
                .strip_suffix(above.as_str())
                .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
        }
    }
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Where.
    pub place: Place,
    /// Which ports.
    pub span: Span,
}

/// Why a text is not a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct RuleError {
    pub(super) reason: String,
}

fn wrong<T>(reason: impl Into<String>) -> Result<T, RuleError> {
    Err(RuleError {
        reason: reason.into(),
    })
}

impl Rule {
    /// Reads one.
    ///
    /// # Errors
    /// What is wrong, and what would be right.
    pub fn parse(text: &str) -> Result<Self, RuleError> {
        let (protocol, rest) = match text.split_once(':') {
            Some(("tcp", rest)) => (Protocol::Tcp, rest),
            Some(("udp", rest)) => (Protocol::Udp, rest),
            _ => (Protocol::Tcp, text),
        };
        if rest.starts_with('[') || rest.matches(':').count() > 1 {
            return wrong(
                "is IPv6, or of an unknown protocol: sandboxes have IPv4 only, and rules are for tcp and udp",
            );
        }
        let Some((place, ports)) = rest.rsplit_once(':') else {
            return wrong("has no port: write \"place:443\", \"place:8000-8100\" or \"place:*\"");
        };
        let (first, last) = ports_of(ports)?;
        Ok(Self {
            place: place_of(place)?,
            span: Span {
                protocol,
                first,
                last,
            },
        })
    }
}

fn ports_of(text: &str) -> Result<(u16, u16), RuleError> {
    if text == "*" {
        return Ok((1, u16::MAX));
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|port: &u16| digits && *port > 0)
    };
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => Ok((first, last)),
        _ => wrong(format!(
            "has ports {text:?}: write a number from 1 to 65535, two with a hyphen, or *"
        )),
    }
}

fn place_of(text: &str) -> Result<Place, RuleError> {
    if let Some((address, bits)) = text.split_once('/') {
        let Ok(address) = address.parse::<Ipv4Addr>() else {
            return wrong(format!("has {address:?} where an IPv4 address belongs"));
        };
        let digits = bits.bytes().all(|byte| byte.is_ascii_digit());
        let Some(bits) = bits.parse::<u8>().ok().filter(|bits| digits && *bits <= 32) else {
            return wrong(format!(
                "has {bits:?} where a number of bits from 0 to 32 belongs"
            ));
        };
        let prefix = Prefix::of(address, bits);
        if prefix.address() != address {
            return wrong(format!("has bits beyond its prefix: write {prefix}"));
        }
        return Ok(Place::Addresses(prefix));
    }
    if let Ok(address) = text.parse::<Ipv4Addr>() {
        return Ok(Place::Addresses(Prefix::of(address, 32)));
    }
    if text.parse::<Ipv6Addr>().is_ok() {
        return wrong("is IPv6: sandboxes have IPv4 only");
    }
    let (below, name) = match text.strip_prefix("*.") {
        Some(name) => (true, name),
        None => (false, text),
    };
    let name = name.to_ascii_lowercase();
    if !is_name(&name) {
        return wrong(format!(
            "has {text:?}, which is neither an address nor a name: names are of letters, digits, hyphens and dots, \
             others in their \"xn--\" form"
        ));
    }
    Ok(if below {
        Place::Below(name)
    } else {
        Place::Name(name)
    })
}

/// Whether it is a host's name (RFC 1123, section 2.1) in small letters; underscores are in use too. The last
/// label has a letter, for what has none is a misspelt address.
pub(crate) fn is_name(name: &str) -> bool {
    let label = |label: &str| {
        let plain = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_'
        };
        !label.is_empty()
            && label.len() <= MAX_LABEL
            && label.bytes().all(plain)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = name.rsplit('.').next().unwrap_or(name);
    name.len() <= MAX_NAME
        && name.split('.').all(label)
        && last.bytes().any(|byte| byte.is_ascii_lowercase())
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Span {
            protocol,
            first,
            last,
        } = self.span;
        write!(f, "{}:", protocol.name())?;
        match &self.place {
            Place::Addresses(prefix) => write!(f, "{prefix}")?,
            Place::Name(name) => f.write_str(name)?,
            Place::Below(name) => write!(f, "*.{name}")?,
        }
        match (first, last) {
            (1, u16::MAX) => f.write_str(":*"),
            (first, last) if first == last => write!(f, ":{first}"),
            (first, last) => write!(f, ":{first}-{last}"),
        }
    }
}
