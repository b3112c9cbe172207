//! How much a key may use in a day.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Today's budget is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{used:?} of {limit:?} are used today")]
pub struct Exhausted {
    /// What may be used in a day.
    pub limit: Duration,
    /// What was used today. More than the limit if what was admitted used more than was left.
    pub used: Duration,
    /// The day on which there is more, counted from the Unix epoch.
    pub renewed_on: u64,
}

/// Processor time that was used today. Days are those of UTC, numbered from the Unix epoch.
///
/// What a run will use is known when it has ended: it is admitted while anything is left, and
/// charged afterwards, to the day on which it ends. It can use more than was left; by how much is
/// bounded by the runs' own limits and by how many a key may have going at once. A clock that jumps
/// back by days does not renew the budget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DailyBudget {
    day: u64,
    used: Duration,
}

impl DailyBudget {
    /// Nothing was used.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether something may still begin on this day.
    pub fn admit(&self, limit: Duration, day: u64) -> Result<(), Exhausted> {
        let used = self.used(day);
        if used < limit {
            return Ok(());
        }
        Err(Exhausted {
            limit,
            used,
            renewed_on: self.day.max(day).saturating_add(1),
        })
    }

    /// So much was used, by something that ended on this day.
    pub fn charge(&mut self, used: Duration, day: u64) {
        self.used = self.used(day).saturating_add(used);
        self.day = self.day.max(day);
    }

    /// What was used on this day so far.
    pub fn used(&self, day: u64) -> Duration {
        if day > self.day {
            Duration::ZERO
        } else {
            self.used
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_day_has_its_budget() {
        let mut budget = DailyBudget::new();
        assert_eq!(budget.admit(SECOND * 10, 20_000), Ok(()));
        budget.charge(SECOND * 9, 20_000);
        assert_eq!(budget.admit(SECOND * 10, 20_000), Ok(()));
        budget.charge(SECOND * 3, 20_000);
        let exhausted = Exhausted {
            limit: SECOND * 10,
            used: SECOND * 12,
            renewed_on: 20_001,
        };
        assert_eq!(budget.admit(SECOND * 10, 20_000), Err(exhausted));
        assert_eq!(budget.admit(SECOND * 10, 20_001), Ok(()));
        budget.charge(SECOND, 20_001);
        assert_eq!(budget.used(20_001), SECOND);
    }

    #[test]
    fn a_clock_that_jumps_back_does_not_renew_it() {
        let mut budget = DailyBudget::new();
        budget.charge(SECOND, 20_000);
        let refused = budget.admit(SECOND, 19_000).unwrap_err();
        assert_eq!(refused.renewed_on, 20_001);
        budget.charge(SECOND, 19_000);
        assert_eq!(budget.used(20_000), SECOND * 2);
    }

    #[test]
    fn no_budget_admits_nothing() {
        assert!(DailyBudget::new().admit(Duration::ZERO, 1).is_err());
    }
}
