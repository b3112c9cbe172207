//! What one tenant has waiting, and its credit.
//!
//! Rounds are counted. In round `r` the credit is what it was when it was last settled, and the
//! tenant's weight for each round since. An entry is due in the first round in which the credit
//! covers it and everything before it. Within a round tenants come in the order in which they
//! began to wait. So each tenant's entries have ascending dues, all known in advance, and the
//! queue merges them.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::num::NonZeroU32;

use super::lane::{Lane, Sum};

/// When an entry is popped: smaller ones come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Due {
    pub(super) round: u64,
    /// The place of its tenant in each round.
    pub(super) turn: u64,
}

#[derive(Debug)]
pub(super) struct Tenant<I> {
    turn: u64,
    weight: NonZeroU32,
    /// In round `settled`.
    credit: u64,
    settled: u64,
    lanes: BTreeMap<Reverse<u8>, Lane<I>>,
    /// Of all lanes.
    count: usize,
}

impl<I: Copy> Tenant<I> {
    /// A tenant that begins to wait has no credit before the next round: one that comes and goes
    /// would otherwise be served again and again in the same one.
    pub(super) fn new(turn: u64, weight: NonZeroU32, round: u64) -> Self {
        Self {
            turn,
            weight,
            credit: 0,
            settled: round,
            lanes: BTreeMap::new(),
            count: 0,
        }
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn push(&mut self, priority: u8, ticket: u64, id: I, cost: u32) {
        let lane = self
            .lanes
            .entry(Reverse(priority))
            .or_insert_with(Lane::new);
        lane.push(ticket, id, cost);
        self.count += 1;
    }

    /// Takes out an entry that is there.
    pub(super) fn remove(&mut self, priority: u8, ticket: u64) {
        let lane = self
            .lanes
            .get_mut(&Reverse(priority))
            .expect("an entry on record is in its lane");
        lane.remove(ticket);
        if lane.total().count == 0 {
            self.lanes.remove(&Reverse(priority));
        }
        self.count -= 1;
    }

    /// From this round on the tenant has that weight.
    pub(super) fn weigh(&mut self, weight: NonZeroU32, round: u64) {
        self.settle(round);
        self.weight = weight;
    }

    /// Spends credit in this round.
    pub(super) fn pay(&mut self, cost: u32, round: u64) {
        self.settle(round);
        self.credit = self
            .credit
            .checked_sub(u64::from(cost))
            .expect("an entry is due once the credit covers it");
    }

    /// Who is next of this tenant's.
    pub(super) fn first(&self) -> Option<(I, u32)> {
        self.lanes.values().next()?.first()
    }

    /// When its next is due; nothing waits: never.
    pub(super) fn first_due(&self, round: u64) -> Option<Due> {
        let (_, cost) = self.first()?;
        Some(self.due(u64::from(cost), round))
    }

    /// What is popped of this tenant's before this entry, the entry's cost, and when it is due.
    pub(super) fn place(&self, priority: u8, ticket: u64, cost: u32, round: u64) -> (Sum, Due) {
        let mut before = Sum::default();
        for (&Reverse(other), lane) in &self.lanes {
            if other == priority {
                before += lane.before(ticket);
                break;
            }
            before += lane.total();
        }
        let due = self.due(before.cost + u64::from(cost), round);
        (before, due)
    }

    /// How many of this tenant's are popped before another tenant's that is due then. `round` is
    /// the present one.
    pub(super) fn count_before(&self, due: Due, round: u64) -> usize {
        let last = if self.turn < due.turn {
            due.round
        } else {
            // Nothing is due before the present round.
            match due.round.checked_sub(1) {
                Some(last) if last >= round => last,
                _ => return 0,
            }
        };
        let mut credit = self.credit_in(last);
        let mut count = 0;
        for lane in self.lanes.values() {
            let covered = lane.covered_by(credit);
            count += covered.count;
            if covered.count < lane.total().count {
                break;
            }
            credit -= covered.cost;
        }
        count
    }

    /// When the credit covers this cost.
    fn due(&self, cost: u64, round: u64) -> Due {
        let missing = cost.saturating_sub(self.credit);
        let covered = self.settled + missing.div_ceil(u64::from(self.weight.get()));
        Due {
            round: covered.max(round),
            turn: self.turn,
        }
    }

    fn credit_in(&self, round: u64) -> u64 {
        let rounds = round - self.settled;
        let earned = rounds.saturating_mul(u64::from(self.weight.get()));
        self.credit.saturating_add(earned)
    }

    fn settle(&mut self, round: u64) {
        self.credit = self.credit_in(round);
        self.settled = round;
    }
}
