//! Points in time, as numbers.

use std::ops::{Add, Sub};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A point in time: how long after an origin that the caller chooses.
///
/// All moments that meet must have the same origin. Where a moment outlives a process, the origin is
/// one that does too (the Unix epoch); elsewhere that of a monotonic clock is better. Sums that do
/// not fit end at [`Moment::MAX`].
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Moment(Duration);

impl Moment {
    /// The origin itself.
    pub const ORIGIN: Self = Self(Duration::ZERO);
    /// Later than everything that happens.
    pub const MAX: Self = Self(Duration::MAX);

    /// The moment that long after the origin.
    pub const fn after_origin(elapsed: Duration) -> Self {
        Self(elapsed)
    }

    /// How long after the origin this is.
    pub const fn since_origin(self) -> Duration {
        self.0
    }

    /// How long after `earlier` this is; nothing if it is not later.
    pub const fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, later: Duration) -> Self {
        Self(self.0.saturating_add(later))
    }
}

impl Sub<Duration> for Moment {
    type Output = Self;

    /// Not before the origin.
    fn sub(self, earlier: Duration) -> Self {
        Self(self.0.saturating_sub(earlier))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_end_where_time_ends() {
        let second = Duration::from_secs(1);
        let one = Moment::ORIGIN + second;
        assert_eq!(one.since_origin(), second);
        assert_eq!((one + second).since(one), second);
        assert_eq!(one.since(one + second), Duration::ZERO);
        assert_eq!(one - second * 2, Moment::ORIGIN);
        assert_eq!(one + Duration::MAX, Moment::MAX);
    }
}
