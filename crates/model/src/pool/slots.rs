//! The pool: its slots, and what to do about them.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::demand::Demand;
use crate::time::Moment;

/// The wait after a failure; it doubles with each one in a row.
const FIRST_BACK_OFF: Duration = Duration::from_secs(1);
/// The longest wait: a host that has been mended is found out within a minute.
const MOST_BACK_OFF: Duration = Duration::from_secs(60);
/// How many more than wanted stay: the wanted number wavers by one while the demand does not.
const SURPLUS: u32 = 1;
/// A slot is replaced so many preparations before it is too old.
const LEAD: u32 = 2;

/// What a pool is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolConfig {
    /// How many wait when nobody asks; no more than `max`.
    pub min: u32,
    /// How many there are at most, in any state. With none the pool drains.
    pub max: u32,
    /// How long a slot can be claimed after it was ready.
    pub max_age: Duration,
}

/// Names a slot of one pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotId(u64);

impl fmt::Display for SlotId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// What is to be done now. It counts as begun: the next plan does not repeat it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Prepare these. Each ends with [`Pool::ready`] or [`Pool::failed`].
    pub start: Vec<SlotId>,
    /// Destroy these. Each ends with [`Pool::gone`].
    pub retire: Vec<SlotId>,
}

/// How many slots there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Being prepared.
    pub preparing: u32,
    /// Waiting to be claimed, those that are too old included.
    pub ready: u32,
    /// Being destroyed.
    pub retiring: u32,
}

impl Counts {
    /// All of them.
    pub fn all(self) -> u32 {
        self.preparing + self.ready + self.retiring
    }
}

/// What has happened since the pool was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Slots that were begun.
    pub started: u64,
    /// Slots that were claimed.
    pub claimed: u64,
    /// Claims that found nothing.
    pub missed: u64,
    /// Slots that failed.
    pub failed: u64,
    /// Slots that were destroyed unused.
    pub gone: u64,
}

#[derive(Clone, Copy, Debug)]
enum Slot {
    Preparing { since: Moment },
    Ready { since: Moment },
    Retiring,
}

/// The warm pool of one template; see the [module](super).
#[derive(Clone, Debug)]
pub struct Pool {
    config: PoolConfig,
    slots: BTreeMap<SlotId, Slot>,
    next: u64,
    demand: Demand,
    /// In a row, up to now.
    failures: u32,
    not_before: Moment,
    totals: Totals,
}

impl Pool {
    /// An empty pool.
    pub fn new(config: PoolConfig, now: Moment) -> Self {
        Self {
            config,
            slots: BTreeMap::new(),
            next: 0,
            demand: Demand::new(now),
            failures: 0,
            not_before: now,
            totals: Totals::default(),
        }
    }

    /// From now on the pool is to be like this. More than the new maximum are retired by the next
    /// plans, those being prepared once they are ready.
    pub fn configure(&mut self, config: PoolConfig) {
        self.config = config;
    }

    /// How many slots there are.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for slot in self.slots.values() {
            match slot {
                Slot::Preparing { .. } => counts.preparing += 1,
                Slot::Ready { .. } => counts.ready += 1,
                Slot::Retiring => counts.retiring += 1,
            }
        }
        counts
    }

    /// What has happened so far.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// How many are wanted by what is known now.
    pub fn target(&self, now: Moment) -> u32 {
        let PoolConfig { min, max, .. } = self.config;
        let ahead = self.demand.claims_in_a_preparation(now);
        min.saturating_add(ahead).min(max)
    }

    /// What is to be done.
    pub fn plan(&mut self, now: Moment) -> Plan {
        let retire = self.superfluous(now);
        for id in &retire {
            self.slots.insert(*id, Slot::Retiring);
        }
        let start = (0..self.missing(now)).map(|_| self.start(now)).collect();
        Plan { start, retire }
    }

    /// A slot can be claimed. `false`: it was not being prepared.
    pub fn ready(&mut self, id: SlotId, now: Moment) -> bool {
        let Some(slot @ &mut Slot::Preparing { since }) = self.slots.get_mut(&id) else {
            return false;
        };
        *slot = Slot::Ready { since: now };
        self.demand.prepared(now.since(since));
        self.failures = 0;
        true
    }

    /// A slot could not be prepared, or ended while it waited; nothing is left of it. `false`: it
    /// was neither being prepared nor waiting.
    pub fn failed(&mut self, id: SlotId, now: Moment) -> bool {
        if !matches!(
            self.slots.get(&id),
            Some(Slot::Preparing { .. } | Slot::Ready { .. })
        ) {
            return false;
        }
        self.slots.remove(&id);
        self.totals.failed += 1;
        let doubled = 1_u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        self.not_before = now + FIRST_BACK_OFF.saturating_mul(doubled).min(MOST_BACK_OFF);
        self.failures = self.failures.saturating_add(1);
        true
    }

    /// A slot that was retired has been destroyed. `false`: it was not retired.
    pub fn gone(&mut self, id: SlotId) -> bool {
        let retired = matches!(self.slots.get(&id), Some(Slot::Retiring));
        if retired {
            self.slots.remove(&id);
            self.totals.gone += 1;
        }
        retired
    }

    /// Hands out the oldest slot that is not too old; it is the caller's from then on. `None`:
    /// nothing is ready. Either way it counts as demand.
    pub fn claim(&mut self, now: Moment) -> Option<SlotId> {
        self.demand.claim(now);
        let oldest = self
            .by_age()
            .into_iter()
            .find(|&(since, _)| now.since(since) < self.config.max_age);
        let Some((_, id)) = oldest else {
            self.totals.missed += 1;
            return None;
        };
        self.slots.remove(&id);
        self.totals.claimed += 1;
        Some(id)
    }

    /// What is ready, since when, the oldest first.
    fn by_age(&self) -> Vec<(Moment, SlotId)> {
        let mut ready: Vec<_> = self
            .slots
            .iter()
            .filter_map(|(&id, slot)| match slot {
                Slot::Ready { since } => Some((*since, id)),
                _ => None,
            })
            .collect();
        ready.sort_unstable();
        ready
    }

    /// What is too old, and the oldest of what is too much.
    fn superfluous(&self, now: Moment) -> Vec<SlotId> {
        let ready = self.by_age();
        let keep = self.target(now).saturating_add(SURPLUS);
        let too_many = ready
            .len()
            .saturating_sub(keep.min(self.config.max) as usize);
        let too_old = ready
            .iter()
            .take_while(|(since, _)| now.since(*since) >= self.config.max_age)
            .count();
        let retired = ready.into_iter().take(too_many.max(too_old));
        retired.map(|(_, id)| id).collect()
    }

    /// How many are to be started.
    fn missing(&self, now: Moment) -> u32 {
        let counts = self.counts();
        let room = self.config.max.saturating_sub(counts.all());
        if self.failures > 0 {
            // One alone, after the wait, shows whether it works again.
            let wait = now < self.not_before || counts.preparing > 0;
            let missing = counts.ready < self.target(now);
            return u32::from(!wait && missing).min(room);
        }
        let lead = self.demand.preparation().saturating_mul(LEAD);
        // With a life so short that the lead takes all of it, waiting ones still count for a half.
        let fresh = self.config.max_age.saturating_sub(lead);
        let fresh = fresh.max(self.config.max_age / 2);
        let aging = self
            .by_age()
            .iter()
            .take_while(|(since, _)| now.since(*since) >= fresh)
            .count();
        let lasting = (counts.preparing + counts.ready).saturating_sub(aging as u32);
        self.target(now).saturating_sub(lasting).min(room)
    }

    fn start(&mut self, now: Moment) -> SlotId {
        let id = SlotId(self.next);
        self.next += 1;
        self.slots.insert(id, Slot::Preparing { since: now });
        self.totals.started += 1;
        id
    }
}
