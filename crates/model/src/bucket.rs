//! How often a key may ask.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::time::Moment;

/// So many in so much time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many.
    pub count: NonZeroU32,
    /// In how much time. None counts as a nanosecond, more than 584 years as 584.
    pub per: Duration,
}

impl Rate {
    /// So many each second.
    pub const fn per_second(count: NonZeroU32) -> Self {
        let per = Duration::from_secs(1);
        Self { count, per }
    }
}

/// A token bucket: it fills at a steady rate, holds no more than a burst, and each request takes one.
///
/// It is full at first. A clock that stands still fills nothing; one that jumps back costs nothing
/// and gives nothing: the bucket goes on from the new time.
#[derive(Clone, Debug)]
pub struct TokenBucket {
    rate: Rate,
    burst: NonZeroU32,
    /// Exact: in parts of a token, of which there are [`Self::token`].
    level: u128,
    seen: Moment,
}

impl TokenBucket {
    /// A full bucket.
    pub fn new(rate: Rate, burst: NonZeroU32, now: Moment) -> Self {
        let mut bucket = Self {
            rate,
            burst,
            level: 0,
            seen: now,
        };
        bucket.level = bucket.full();
        bucket
    }

    /// Takes one token, or says how long until there is one if nobody else takes it. That is exact
    /// to the nanosecond and never zero.
    pub fn take(&mut self, now: Moment) -> Result<(), Duration> {
        self.fill(now);
        let token = self.token();
        match self.level.checked_sub(token) {
            Some(level) => {
                self.level = level;
                Ok(())
            }
            None => {
                let missing = token - self.level;
                Err(nanoseconds(missing.div_ceil(self.speed())))
            }
        }
    }

    /// How many tokens there are.
    pub fn tokens(&mut self, now: Moment) -> u32 {
        self.fill(now);
        u32::try_from(self.level / self.token()).unwrap_or(u32::MAX)
    }

    /// The limits change; what is in the bucket stays, in tokens, as far as it still fits.
    pub fn set_limits(&mut self, rate: Rate, burst: NonZeroU32, now: Moment) {
        self.fill(now);
        let before = self.token();
        (self.rate, self.burst) = (rate, burst);
        let (tokens, rest) = (self.level / before, self.level % before);
        // Fits: tokens have fewer than 2^64 parts.
        let level = tokens * self.token() + rest * self.token() / before;
        self.level = level.min(self.full());
    }

    fn fill(&mut self, now: Moment) {
        let earned = now.since(self.seen).as_nanos() * self.speed();
        self.level = self.level.saturating_add(earned).min(self.full());
        self.seen = now;
    }

    /// Parts of one token: one nanosecond of the rate's time has `speed` of them.
    fn token(&self) -> u128 {
        self.rate.per.as_nanos().clamp(1, u128::from(u64::MAX))
    }

    fn speed(&self) -> u128 {
        u128::from(self.rate.count.get())
    }

    fn full(&self) -> u128 {
        self.token() * u128::from(self.burst.get())
    }
}

fn nanoseconds(count: u128) -> Duration {
    const SECOND: u128 = 1_000_000_000;
    let seconds = u64::try_from(count / SECOND).unwrap_or(u64::MAX);
    let rest = u32::try_from(count % SECOND).expect("less than a second of nanoseconds");
    Duration::new(seconds, rest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Moment = Moment::after_origin(Duration::from_secs(1_000));
    const MS: Duration = Duration::from_millis(1);

    fn number(number: u32) -> NonZeroU32 {
        NonZeroU32::new(number).unwrap()
    }

    fn bucket(per_second: u32, burst: u32) -> TokenBucket {
        TokenBucket::new(Rate::per_second(number(per_second)), number(burst), NOW)
    }

    #[test]
    fn a_burst_and_then_the_rate() {
        let mut bucket = bucket(10, 3);
        for _ in 0..3 {
            assert_eq!(bucket.take(NOW), Ok(()));
        }
        assert_eq!(bucket.take(NOW), Err(MS * 100));
        assert_eq!(bucket.take(NOW + MS * 30), Err(MS * 70));
        assert_eq!(bucket.take(NOW + MS * 100), Ok(()));
        assert_eq!(bucket.tokens(NOW + MS * 10_000), 3);
    }

    #[test]
    fn a_clock_that_jumps_back_neither_gives_nor_takes() {
        let mut bucket = bucket(1, 1);
        bucket.take(NOW).unwrap();
        let before = NOW - Duration::from_secs(900);
        assert_eq!(bucket.take(before), Err(MS * 1_000));
        assert_eq!(bucket.take(before + MS * 400), Err(MS * 600));
        assert_eq!(bucket.take(before + MS * 1_000), Ok(()));
    }

    #[test]
    fn a_third_of_a_second_is_not_rounded_down() {
        let mut bucket = bucket(3, 1);
        bucket.take(NOW).unwrap();
        let wait = bucket.take(NOW).unwrap_err();
        assert_eq!(wait, Duration::from_nanos(333_333_334));
        assert_eq!(bucket.take(NOW + wait), Ok(()));
    }

    #[test]
    fn new_limits_keep_what_there_is() {
        let mut bucket = bucket(10, 4);
        bucket.take(NOW).unwrap();
        let rate = Rate {
            count: number(1),
            per: MS * 60_000,
        };
        bucket.set_limits(rate, number(100), NOW);
        assert_eq!(bucket.tokens(NOW), 3);
        bucket.set_limits(rate, number(2), NOW);
        assert_eq!(bucket.tokens(NOW), 2);
    }

    #[test]
    fn limits_without_measure_do_not_overflow() {
        let rate = Rate {
            count: NonZeroU32::MAX,
            per: Duration::MAX,
        };
        let mut bucket = TokenBucket::new(rate, NonZeroU32::MAX, Moment::ORIGIN);
        bucket.level -= 1;
        bucket.set_limits(rate, NonZeroU32::MAX, Moment::ORIGIN);
        assert_eq!(bucket.level, bucket.full() - 1);
        assert_eq!(bucket.tokens(Moment::MAX), u32::MAX);
        bucket.set_limits(
            Rate {
                per: Duration::ZERO,
                ..rate
            },
            NonZeroU32::MAX,
            Moment::MAX,
        );
        assert_eq!(bucket.tokens(Moment::MAX), u32::MAX);
    }

    proptest! {
        #[test]
        fn a_refusal_says_how_long_and_no_longer(
            per_second in 1..1_000_u32,
            burst in 1..20_u32,
            steps in prop::collection::vec(0..2_000_000_000_u64, 1..50),
        ) {
            let mut bucket = bucket(per_second, burst);
            let (mut now, mut taken) = (NOW, 0_u128);
            for step in steps {
                now = now + Duration::from_nanos(step);
                while bucket.take(now).is_ok() {
                    taken += 1;
                }
                let wait = bucket.take(now).unwrap_err();
                prop_assert!(wait > Duration::ZERO);
                let early = now + (wait - Duration::from_nanos(1));
                prop_assert!(bucket.clone().take(early).is_err());
                prop_assert!(bucket.clone().take(now + wait).is_ok());
                let most = u128::from(burst)
                    + now.since(NOW).as_nanos() * u128::from(per_second) / 1_000_000_000;
                prop_assert!(taken <= most);
            }
        }
    }
}
