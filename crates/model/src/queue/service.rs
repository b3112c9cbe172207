//! How long the wait will be.

use std::time::Duration;

/// What the newest duration weighs against all before it. One in sixteen: an odd one does not
/// turn the estimate over, and a change of the load shows within some dozens of runs.
const NEWEST: f64 = 1.0 / 16.0;

/// A moving estimate of how long a slot is taken by what is popped.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ServiceRate {
    seconds: f64,
}

impl ServiceRate {
    /// Begins with a guess.
    pub fn new(guess: Duration) -> Self {
        Self {
            seconds: guess.as_secs_f64(),
        }
    }

    /// One has just ended that took this long.
    pub fn observe(&mut self, took: Duration) {
        self.seconds += (took.as_secs_f64() - self.seconds) * NEWEST;
    }

    /// How long one takes.
    pub fn mean(&self) -> Duration {
        Duration::try_from_secs_f64(self.seconds).unwrap_or(Duration::MAX)
    }

    /// How long an entry waits until it is popped, with so many before it and so many slots, all of
    /// them taken. `None`: without slots nothing is ever popped.
    pub fn wait(&self, ahead: usize, slots: usize) -> Option<Duration> {
        if slots == 0 {
            return None;
        }
        // One slot becomes free each `mean / slots`; this entry takes the one after those before it.
        let seconds = self.seconds * (ahead as f64 + 1.0) / slots as f64;
        Some(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_wait_grows_with_what_is_ahead_and_shrinks_with_slots() {
        let rate = ServiceRate::new(SECOND * 2);
        assert_eq!(rate.wait(0, 1), Some(SECOND * 2));
        assert_eq!(rate.wait(9, 1), Some(SECOND * 20));
        assert_eq!(rate.wait(9, 4), Some(SECOND * 5));
        assert_eq!(rate.wait(9, 0), None);
    }

    #[test]
    fn the_estimate_follows_what_is_seen() {
        let mut rate = ServiceRate::new(SECOND);
        rate.observe(SECOND * 17);
        assert_eq!(rate.mean(), SECOND * 2);
        for _ in 0..200 {
            rate.observe(SECOND * 5);
        }
        assert!(rate.mean().abs_diff(SECOND * 5) < SECOND / 100);
    }

    #[test]
    fn numbers_without_measure_stay_durations() {
        let mut rate = ServiceRate::new(Duration::MAX);
        rate.observe(Duration::MAX);
        assert_eq!(rate.wait(usize::MAX, 1), Some(Duration::MAX));
    }
}
