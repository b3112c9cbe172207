//! The queue: entries, bounds, deadlines, whose turn it is.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

use super::tenant::{Due, Tenant};
use crate::time::Moment;

/// How much may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Entries of all tenants together: what waits is kept in memory.
    pub total: usize,
    /// Entries of one tenant: one that floods must leave room for the others.
    pub per_tenant: usize,
    /// Cost of one entry. Two tenants' shares can differ by the cost of an entry, so this is the
    /// measure of how fair the queue is in the short run.
    pub cost: NonZeroU32,
}

/// Something that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<I, K, T> {
    /// Its name, by which it can be cancelled.
    pub id: I,
    /// Whose it is.
    pub tenant: K,
    /// The tenant's weight, from this entry on and for all of the tenant's that wait.
    pub weight: NonZeroU32,
    /// Higher ones of the same tenant come first. Other tenants are not affected.
    pub priority: u8,
    /// What it takes from its tenant's share, in any unit that is the same for all.
    pub cost: NonZeroU32,
    /// From then on it is not popped any more.
    pub deadline: Option<Moment>,
    /// What is to be done.
    pub item: T,
}

/// Where a new entry stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// How many are popped before it if nothing else comes or goes.
    pub ahead: usize,
}

/// Why an entry does not enter. It is dropped; nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// This tenant has too much waiting.
    #[error("{limit} entries of this tenant wait, which is the most")]
    TenantFull {
        /// [`Limits::per_tenant`].
        limit: usize,
    },
    /// All tenants together have too much waiting.
    #[error("{limit} entries wait, which is the most")]
    QueueFull {
        /// [`Limits::total`].
        limit: usize,
    },
    /// One entry may not cost as much.
    #[error("it costs {cost}, more than {limit}")]
    TooCostly {
        /// What it costs.
        cost: NonZeroU32,
        /// [`Limits::cost`].
        limit: NonZeroU32,
    },
    /// An entry with this id waits.
    #[error("an entry with the same id waits")]
    AlreadyQueued,
}

#[derive(Debug)]
struct Waiting<I, K, T> {
    entry: Entry<I, K, T>,
    /// The order in which entries came.
    ticket: u64,
}

/// A bounded queue that divides the service between tenants `K`; see the [module](super).
///
/// `pop` and `cancel` take logarithmic time; `position`, and `push`, which tells it, logarithmic time
/// for each tenant that waits.
#[derive(Debug)]
pub struct FairQueue<I, K, T> {
    limits: Limits,
    entries: BTreeMap<I, Waiting<I, K, T>>,
    /// Those that wait: a tenant without entries is forgotten.
    tenants: BTreeMap<K, Tenant<I>>,
    /// When the next entry of each tenant is due.
    calendar: BTreeMap<Due, K>,
    deadlines: BTreeSet<(Moment, I)>,
    /// Found past their deadline while popping, until someone asks for them.
    overdue: Vec<Entry<I, K, T>>,
    /// That of the latest pop.
    round: u64,
    next_ticket: u64,
    next_turn: u64,
}

impl<I: Copy + Ord, K: Clone + Ord, T> FairQueue<I, K, T> {
    /// An empty queue.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            entries: BTreeMap::new(),
            tenants: BTreeMap::new(),
            calendar: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            overdue: Vec::new(),
            round: 0,
            next_ticket: 0,
            next_turn: 0,
        }
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many of this tenant's wait.
    pub fn tenant_len(&self, tenant: &K) -> usize {
        self.tenants.get(tenant).map_or(0, Tenant::count)
    }

    /// Each tenant that waits, and how many of its entries.
    pub fn tenants(&self) -> impl Iterator<Item = (&K, usize)> {
        let each = self.tenants.iter();
        each.map(|(name, tenant)| (name, tenant.count()))
    }

    /// What waits under this id.
    pub fn get(&self, id: I) -> Option<&Entry<I, K, T>> {
        self.entries.get(&id).map(|waiting| &waiting.entry)
    }

    /// Puts an entry at the end of its priority.
    pub fn push(&mut self, entry: Entry<I, K, T>) -> Result<Place, Refused> {
        self.check(&entry)?;
        let (id, name, ticket) = (entry.id, entry.tenant.clone(), self.next_ticket);
        self.next_ticket += 1;
        if !self.tenants.contains_key(&name) {
            let tenant = Tenant::new(self.next_turn, entry.weight, self.round);
            self.next_turn += 1;
            self.tenants.insert(name.clone(), tenant);
        }
        let (weight, priority, cost) = (entry.weight, entry.priority, entry.cost.get());
        self.change(&name, |tenant, round| {
            tenant.weigh(weight, round);
            tenant.push(priority, ticket, id, cost);
        });
        self.deadlines
            .extend(entry.deadline.map(|deadline| (deadline, id)));
        self.entries.insert(id, Waiting { entry, ticket });
        let ahead = self.position(id).expect("it has just been put there");
        Ok(Place { ahead })
    }

    /// Takes out whoever is next, unless nobody waits. Entries whose deadline is not after `now` are
    /// passed over and kept for [`Self::expire`].
    pub fn pop(&mut self, now: Moment) -> Option<Entry<I, K, T>> {
        self.set_overdue_aside(now);
        let (&due, name) = self.calendar.first_key_value()?;
        let tenant = &self.tenants[name];
        let (id, _) = tenant.first().expect("a tenant without entries is gone");
        self.round = due.round;
        Some(self.take(id, true).expect("what is in a lane is on record"))
    }

    /// Takes out one entry, wherever it stands. `None`: it does not wait (any more).
    pub fn cancel(&mut self, id: I) -> Option<Entry<I, K, T>> {
        self.take(id, false)
    }

    /// Takes out all entries whose deadline is not after `now`, the earliest first.
    pub fn expire(&mut self, now: Moment) -> Vec<Entry<I, K, T>> {
        self.set_overdue_aside(now);
        std::mem::take(&mut self.overdue)
    }

    /// When the next entry has to be expired.
    pub fn next_deadline(&self) -> Option<Moment> {
        self.deadlines.first().map(|&(deadline, _)| deadline)
    }

    /// How many are popped before this entry if nothing else comes or goes. `None`: it does not wait.
    pub fn position(&self, id: I) -> Option<usize> {
        let Waiting { entry, ticket } = self.entries.get(&id)?;
        let own = &self.tenants[&entry.tenant];
        let (before, due) = own.place(entry.priority, *ticket, entry.cost.get(), self.round);
        let others = self
            .tenants
            .iter()
            .filter(|(name, _)| **name != entry.tenant)
            .map(|(_, tenant)| tenant.count_before(due, self.round));
        Some(before.count + others.sum::<usize>())
    }

    /// Whether one more of this tenant would be let in, with so many in all and of the tenant that are
    /// on their way and are not here yet.
    pub fn room(&self, tenant: &K, coming: usize, coming_of_tenant: usize) -> Result<(), Refused> {
        let Limits {
            total, per_tenant, ..
        } = self.limits;
        if self.tenant_len(tenant) + coming_of_tenant >= per_tenant {
            Err(Refused::TenantFull { limit: per_tenant })
        } else if self.entries.len() + self.overdue.len() + coming >= total {
            Err(Refused::QueueFull { limit: total })
        } else {
            Ok(())
        }
    }

    fn check(&self, entry: &Entry<I, K, T>) -> Result<(), Refused> {
        let cost = self.limits.cost;
        if self.entries.contains_key(&entry.id) {
            Err(Refused::AlreadyQueued)
        } else if entry.cost > cost {
            Err(Refused::TooCostly {
                cost: entry.cost,
                limit: cost,
            })
        } else {
            self.room(&entry.tenant, 0, 0)
        }
    }

    fn set_overdue_aside(&mut self, now: Moment) {
        while let Some(&(deadline, id)) = self.deadlines.first() {
            if deadline > now {
                break;
            }
            let entry = self.take(id, false).expect("what has a deadline waits");
            self.overdue.push(entry);
        }
    }

    fn take(&mut self, id: I, served: bool) -> Option<Entry<I, K, T>> {
        let Waiting { entry, ticket } = self.entries.remove(&id)?;
        if let Some(deadline) = entry.deadline {
            self.deadlines.remove(&(deadline, id));
        }
        self.change(&entry.tenant, |tenant, round| {
            if served {
                tenant.pay(entry.cost.get(), round);
            }
            tenant.remove(entry.priority, ticket);
        });
        Some(entry)
    }

    /// Changes a tenant that is there, and with it its place in the calendar.
    fn change(&mut self, name: &K, change: impl FnOnce(&mut Tenant<I>, u64)) {
        let tenant = self
            .tenants
            .get_mut(name)
            .expect("the tenant of an entry on record is there");
        if let Some(due) = tenant.first_due(self.round) {
            self.calendar.remove(&due);
        }
        change(tenant, self.round);
        match tenant.first_due(self.round) {
            Some(due) => drop(self.calendar.insert(due, name.clone())),
            None => drop(self.tenants.remove(name)),
        }
    }
}
