//! What happened in the network of a sandbox.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Most flows and refusals, and most names, that a service lists.
pub const MAX_LISTED: usize = 128;

/// What happened in a sandbox's network: see `docs/network.md`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NetworkSeen {
    /// The kind of fence: `ebpf` or `nftables`.
    pub fence: String,
    /// How often: packets and bytes each way, flows that began, and packets that were refused, by reason. What
    /// never happened is left out.
    pub counts: BTreeMap<String, u64>,
    /// Flows that began, and packets that were refused, by their other side.
    pub meetings: Vec<NetworkMeeting>,
    /// Names that were asked for.
    pub lookups: Vec<NetworkLookup>,
    /// How many more of the two there were than are listed.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schema(default = 0)]
    pub unlisted: u64,
}

/// Flows that began, or packets that were refused, with the same other side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NetworkMeeting {
    /// What became of them: a name of `counts`.
    #[schema(example = "flows")]
    pub count: String,
    /// The other side; 0.0.0.0 where there was none.
    #[schema(example = "203.0.113.7")]
    pub address: String,
    /// Its port; 0 where there was none.
    pub port: u16,
    /// The number of the protocol (IANA, "Protocol Numbers").
    pub protocol: u8,
    /// How many.
    pub times: u64,
}

/// A name that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NetworkLookup {
    /// The name.
    pub name: String,
    /// What became of it: `answered`, `rebound` (an address was in a blocked range, and kept back), `no_name`,
    /// `refused` or `failed`.
    pub outcome: String,
    /// How often.
    pub times: u64,
}

impl NetworkSeen {
    /// This, and what happened after it in another network of the same sandbox. It is not bounded: see
    /// [`NetworkSeen::bounded`].
    #[must_use]
    pub fn and_then(mut self, later: NetworkSeen) -> NetworkSeen {
        self.fence = later.fence;
        self.unlisted = self.unlisted.saturating_add(later.unlisted);
        for (name, times) in later.counts {
            add(self.counts.entry(name).or_default(), times);
        }
        for meeting in later.meetings {
            let key = |one: &NetworkMeeting| {
                let NetworkMeeting { port, protocol, .. } = *one;
                (one.count.clone(), one.address.clone(), port, protocol)
            };
            let same = |one: &&mut NetworkMeeting| key(one) == key(&meeting);
            match self.meetings.iter_mut().find(same) {
                Some(one) => add(&mut one.times, meeting.times),
                None => self.meetings.push(meeting),
            }
        }
        for lookup in later.lookups {
            let same = |one: &&mut NetworkLookup| {
                (&one.name, &one.outcome) == (&lookup.name, &lookup.outcome)
            };
            match self.lookups.iter_mut().find(same) {
                Some(one) => add(&mut one.times, lookup.times),
                None => self.lookups.push(lookup),
            }
        }
        self
    }

    /// How much was counted: of two words of one sandbox, the later one has no less.
    #[must_use]
    pub fn total(&self) -> u64 {
        let sum = |sum: u64, times: &u64| sum.saturating_add(*times);
        self.counts.values().fold(0, sum)
    }

    /// The same with [`MAX_LISTED`] of each list at most, the first ones.
    #[must_use]
    pub fn bounded(mut self) -> NetworkSeen {
        let over = |length: usize| length.saturating_sub(MAX_LISTED) as u64;
        let cut = over(self.meetings.len()) + over(self.lookups.len());
        self.meetings.truncate(MAX_LISTED);
        self.lookups.truncate(MAX_LISTED);
        self.unlisted = self.unlisted.saturating_add(cut);
        self
    }
}

fn add(sum: &mut u64, more: u64) {
    *sum = sum.saturating_add(more);
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(count: &str, port: u16, name: &str) -> NetworkSeen {
        NetworkSeen {
            fence: "ebpf".into(),
            counts: [(count.into(), 1)].into(),
            meetings: vec![NetworkMeeting {
                count: count.into(),
                address: "203.0.113.7".into(),
                port,
                protocol: 6,
                times: 1,
            }],
            lookups: vec![NetworkLookup {
                name: name.into(),
                outcome: "answered".into(),
                times: 1,
            }],
            unlisted: 0,
        }
    }

    #[test]
    fn what_happened_in_two_networks_is_added_up() {
        let both = seen("flows", 80, "a").and_then(seen("flows", 80, "a"));
        assert_eq!(both.counts["flows"], 2);
        assert_eq!((both.meetings.len(), both.meetings[0].times), (1, 2));
        assert_eq!((both.lookups.len(), both.lookups[0].times), (1, 2));
        let both = seen("flows", 80, "a").and_then(seen("denied", 81, "b"));
        assert_eq!((both.meetings.len(), both.lookups.len()), (2, 2));
        assert_eq!(both.counts.len(), 2);
    }

    #[test]
    fn what_is_not_listed_is_counted() {
        let mut all = NetworkSeen::default();
        for port in 0..200 {
            all = all.and_then(seen("denied", port, "a"));
        }
        let bounded = all.bounded().bounded();
        assert_eq!(bounded.counts["denied"], 200);
        assert_eq!((bounded.meetings.len(), bounded.unlisted), (128, 72));
    }
}
