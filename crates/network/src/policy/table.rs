//! Rules about addresses, merged so that the longest prefix with an address in it says all about it.
//!
//! A fence looks an address up once. So each prefix that a rule or a blocked range has gets an entry with
//! the ports of all the rules that hold there: those whose addresses contain the prefix, and which open
//! every blocked range that contains it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use super::blocked::{Blocked, RANGES};
use super::prefix::Prefix;
use super::rule::{Place, Protocol, Rule, Span};

/// Most spans of ports for one address: as many as the fence's programs look through.
pub const MAX_SPANS: usize = 16;

/// More ports for one address than a fence holds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{count} rules hold for {prefix}, more than {MAX_SPANS}: write ports next to each other as one span"
)]
pub struct TableError {
    /// The addresses.
    pub prefix: Prefix,
    /// How many rules.
    pub count: usize,
}

/// What holds for the addresses of a prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// Ports that may be reached.
    pub spans: BTreeSet<Span>,
    /// Whether the rest is blocked, also for names.
    pub blocked: bool,
}

/// What a fence does with a new flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may begin.
    Allowed,
    /// No rule allows it, unless the address is pinned.
    Denied,
    /// It leads to a blocked range.
    Blocked,
}

/// The table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    entries: BTreeMap<Prefix, Grant>,
    blocked: Vec<Blocked>,
}

impl Table {
    pub(super) fn new(rules: &[Rule], host: &[Blocked]) -> Result<Self, TableError> {
        let blocked: Vec<Blocked> = RANGES.iter().chain(host).copied().collect();
        let addressed = rules.iter().filter_map(|rule| match rule.place {
            Place::Addresses(prefix) => Some((prefix, rule.span)),
            _ => None,
        });
        let addressed: Vec<(Prefix, Span)> = addressed.collect();
        let ranges = blocked.iter().map(|range| range.prefix);
        let named = addressed.iter().map(|(prefix, _)| *prefix);
        let mut entries = BTreeMap::new();
        for prefix in ranges.chain(named) {
            let around: Vec<&Blocked> = blocked
                .iter()
                .filter(|range| range.prefix.contains(prefix))
                .collect();
            let holds = |named: Prefix| {
                named.contains(prefix)
                    && innermost(&around).is_none_or(|range| range.is_opened_by(named))
            };
            let spans = addressed.iter().filter(|(named, _)| holds(*named));
            let spans: BTreeSet<Span> = spans.map(|(_, span)| *span).collect();
            if spans.len() > MAX_SPANS {
                return Err(TableError {
                    prefix,
                    count: spans.len(),
                });
            }
            entries.insert(
                prefix,
                Grant {
                    spans,
                    blocked: !around.is_empty(),
                },
            );
        }
        Ok(Self { entries, blocked })
    }

    /// All entries, shortest prefix first.
    pub fn entries(&self) -> impl DoubleEndedIterator<Item = (Prefix, &Grant)> {
        self.entries.iter().map(|(prefix, grant)| (*prefix, grant))
    }

    /// What becomes of a new flow to there, pinned addresses aside.
    #[must_use]
    pub fn judge(&self, address: Ipv4Addr, protocol: Protocol, port: u16) -> Verdict {
        let longest = self.entries().rfind(|(prefix, _)| prefix.has(address));
        match longest {
            None => Verdict::Denied,
            Some((_, grant)) if grant.spans.iter().any(|span| span.has(protocol, port)) => {
                Verdict::Allowed
            }
            Some((_, grant)) if grant.blocked => Verdict::Blocked,
            Some(_) => Verdict::Denied,
        }
    }

    /// Whether the address is in a blocked range, opened or not: no name leads there.
    #[must_use]
    pub fn is_blocked(&self, address: Ipv4Addr) -> bool {
        self.blocked.iter().any(|range| range.prefix.has(address))
    }
}

/// The smallest of ranges that contain each other: what has an entry of its own is opened by that only.
fn innermost<'a>(around: &[&'a Blocked]) -> Option<&'a Blocked> {
    around
        .iter()
        .max_by_key(|range| range.prefix.bits())
        .copied()
}
