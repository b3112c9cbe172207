//! The entries of one tenant with one priority: first in, first out, from anywhere out.
//!
//! Entries lie in a row in the order they came. A binary indexed tree over the row knows how many
//! entries a prefix of it holds and what they cost, so that taking one out of the middle, and asking
//! how many are covered by some credit, both take logarithmic time. Gaps are closed once they are
//! as many as the entries.

use std::ops::{AddAssign, SubAssign};

/// Gaps that are not worth closing.
const FEW_GAPS: usize = 32;

/// How many entries, and what they cost together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) count: usize,
    pub(super) cost: u64,
}

impl AddAssign for Sum {
    fn add_assign(&mut self, other: Self) {
        self.count += other.count;
        self.cost += other.cost;
    }
}

impl SubAssign for Sum {
    fn sub_assign(&mut self, other: Self) {
        self.count -= other.count;
        self.cost -= other.cost;
    }
}

#[derive(Debug)]
struct Slot<I> {
    ticket: u64,
    id: I,
    /// Zero in a gap: entries cost at least one.
    cost: u32,
}

impl<I> Slot<I> {
    fn sum(&self) -> Sum {
        Sum {
            count: usize::from(self.cost > 0),
            cost: u64::from(self.cost),
        }
    }
}

#[derive(Debug)]
pub(super) struct Lane<I> {
    /// By ticket, ascending.
    slots: Vec<Slot<I>>,
    /// Binary indexed tree over the slots; node `n`, counted from 1, is at `n - 1`.
    tree: Vec<Sum>,
    total: Sum,
}

impl<I: Copy> Lane<I> {
    pub(super) fn new() -> Self {
        Self {
            slots: Vec::new(),
            tree: Vec::new(),
            total: Sum::default(),
        }
    }

    pub(super) fn total(&self) -> Sum {
        self.total
    }

    /// Tickets ascend from push to push.
    pub(super) fn push(&mut self, ticket: u64, id: I, cost: u32) {
        let slot = Slot { ticket, id, cost };
        self.total += slot.sum();
        self.append(slot);
    }

    /// Takes out the entry with this ticket, which is there.
    pub(super) fn remove(&mut self, ticket: u64) {
        let index = self.index(ticket);
        let gone = self.slots[index].sum();
        debug_assert_eq!(gone.count, 1, "an entry is taken out once");
        self.slots[index].cost = 0;
        self.total -= gone;
        let mut node = index + 1;
        while node <= self.tree.len() {
            self.tree[node - 1] -= gone;
            node += lowest_bit(node);
        }
        if self.slots.len() > 2 * self.total.count + FEW_GAPS {
            self.close_gaps();
        }
    }

    /// The entry that came first, and its cost.
    pub(super) fn first(&self) -> Option<(I, u32)> {
        let (gaps, _) = self.longest_prefix(|sum| sum.count == 0);
        self.slots.get(gaps).map(|slot| (slot.id, slot.cost))
    }

    /// What came before the entry with this ticket.
    pub(super) fn before(&self, ticket: u64) -> Sum {
        let mut sum = Sum::default();
        let mut node = self.index(ticket);
        while node > 0 {
            sum += self.tree[node - 1];
            node -= lowest_bit(node);
        }
        sum
    }

    /// The first entries, as many as this credit covers together.
    pub(super) fn covered_by(&self, credit: u64) -> Sum {
        self.longest_prefix(|sum| sum.cost <= credit).1
    }

    /// The longest prefix of the row whose sum passes, and that sum. What passes only grows shorter
    /// as sums grow.
    fn longest_prefix(&self, passes: impl Fn(Sum) -> bool) -> (usize, Sum) {
        let (mut length, mut sum) = (0, Sum::default());
        let mut step = self.tree.len().checked_ilog2().map_or(0, |log| 1 << log);
        while step > 0 {
            if let Some(part) = self.tree.get(length + step - 1) {
                let mut longer = sum;
                longer += *part;
                if passes(longer) {
                    (length, sum) = (length + step, longer);
                }
            }
            step /= 2;
        }
        (length, sum)
    }

    fn index(&self, ticket: u64) -> usize {
        self.slots
            .binary_search_by_key(&ticket, |slot| slot.ticket)
            .expect("whoever asks knows the ticket from the queue's own records")
    }

    fn append(&mut self, slot: Slot<I>) {
        let node = self.tree.len() + 1;
        let mut sum = slot.sum();
        let mut child = node - 1;
        while child > node - lowest_bit(node) {
            sum += self.tree[child - 1];
            child -= lowest_bit(child);
        }
        self.tree.push(sum);
        self.slots.push(slot);
    }

    fn close_gaps(&mut self) {
        self.tree = Vec::with_capacity(self.total.count);
        let live = Vec::with_capacity(self.total.count);
        for slot in std::mem::replace(&mut self.slots, live) {
            if slot.cost > 0 {
                self.append(slot);
            }
        }
    }
}

fn lowest_bit(node: usize) -> usize {
    node & node.wrapping_neg()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The plain way: a list that is added up.
        #[test]
        fn a_lane_is_a_list(steps in prop::collection::vec((1..9_u32, any::<Option<prop::sample::Index>>()), 1..200)) {
            let mut lane = Lane::new();
            let mut list: Vec<(u64, u32)> = Vec::new();
            for (ticket, (cost, remove)) in steps.into_iter().enumerate() {
                let ticket = ticket as u64;
                match remove {
                    Some(index) if !list.is_empty() => {
                        let (gone, _) = list.remove(index.index(list.len()));
                        lane.remove(gone);
                    }
                    _ => {
                        lane.push(ticket, ticket, cost);
                        list.push((ticket, cost));
                    }
                }
                let mut sum = Sum::default();
                prop_assert_eq!(lane.first(), list.first().copied());
                for &(ticket, cost) in &list {
                    prop_assert_eq!(lane.before(ticket), sum);
                    sum += Sum { count: 1, cost: u64::from(cost) };
                    prop_assert_eq!(lane.covered_by(sum.cost), sum);
                    prop_assert_eq!(lane.covered_by(sum.cost - 1), lane.before(ticket));
                }
                prop_assert_eq!(lane.total(), sum);
            }
        }
    }

    #[test]
    fn gaps_do_not_pile_up() {
        let mut lane = Lane::new();
        for ticket in 0..10_000 {
            lane.push(ticket, ticket, 1);
            if ticket >= 10 {
                lane.remove(ticket - 10);
            }
            assert!(lane.slots.len() <= 2 * 10 + FEW_GAPS + 1);
        }
    }
}
