//! Whether anybody uses a sandbox.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::Moment;

/// What happens to a sandbox that nobody uses: no exec runs in it, and its processors are at rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdlePolicy {
    /// For how long. Longer than the time between two samples of processor time, or work without
    /// an exec is not noticed.
    pub after: Duration,
    /// Processor time in each second up to which it is at rest: a guest at rest uses some, and an
    /// emulated one more.
    pub rest: Duration,
    /// What is done then.
    pub then: Then,
}

/// What is done with an idle sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Then {
    /// It is paused.
    Pause,
    /// It is destroyed.
    Destroy,
}

/// Since when nobody has used it, as far as processors tell.
#[derive(Clone, Debug)]
pub(super) struct Activity {
    /// When it was last seen to be used.
    latest: Moment,
    /// The latest sample.
    sampled: Moment,
    used: Duration,
}

impl Activity {
    pub(super) fn new(now: Moment) -> Self {
        Self {
            latest: now,
            sampled: now,
            used: Duration::ZERO,
        }
    }

    /// It is being used.
    pub(super) fn touch(&mut self, now: Moment) {
        self.latest = now;
    }

    /// So much processor time was used in all. Less than before: it is counted anew.
    pub(super) fn sample(&mut self, used: Duration, rest: Duration, now: Moment) {
        let newly = used.checked_sub(self.used).unwrap_or(used);
        // In nanoseconds squared; 128 bits hold that for centuries.
        let second = Duration::from_secs(1).as_nanos();
        let elapsed = now.since(self.sampled).as_nanos();
        if newly.as_nanos().saturating_mul(second) > rest.as_nanos().saturating_mul(elapsed) {
            self.latest = now;
        }
        (self.sampled, self.used) = (now, used);
    }

    /// When it was last used.
    pub(super) fn latest(&self) -> Moment {
        self.latest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const NOW: Moment = Moment::after_origin(Duration::from_secs(1_000));

    /// Samples (after ms, used ms), at rest with 10 ms in each second; when it was last used.
    fn check(samples: &[(u32, u32)], expected: u32) {
        let mut activity = Activity::new(NOW);
        for &(after, used) in samples {
            activity.sample(MS * used, MS * 10, NOW + MS * after);
        }
        assert_eq!(activity.latest(), NOW + MS * expected, "{samples:?}");
    }

    #[test]
    fn use_is_processor_time_over_rest() {
        check(&[(1_000, 10)], 0);
        check(&[(1_000, 11)], 1_000);
        check(&[(10_000, 100), (20_000, 200)], 0);
        check(&[(10_000, 500), (20_000, 600)], 10_000);
        // Counted anew, by another VMM.
        check(&[(1_000, 500), (2_000, 9)], 1_000);
        check(&[(1_000, 500), (2_000, 11)], 2_000);
        // A clock that stands still.
        check(&[(1_000, 10), (1_000, 10)], 0);
        check(&[(1_000, 10), (1_000, 11)], 1_000);
    }
}
