//! How often slots are claimed, and how long one takes to prepare.

use std::time::Duration;

use crate::time::Moment;

/// Over which time claims are counted: an hour-old rush is forgotten, a pause between two requests
/// of one client is not the end of the demand.
const MEMORY: Duration = Duration::from_secs(60);
/// What the newest preparation weighs against all before it.
const NEWEST: f64 = 1.0 / 8.0;

/// Moving estimates.
#[derive(Clone, Debug)]
pub(super) struct Demand {
    /// Claims each second, as of `seen`: each adds its part, and all fade exponentially.
    rate: f64,
    seen: Moment,
    /// Seconds.
    preparation: Option<f64>,
}

impl Demand {
    pub(super) fn new(now: Moment) -> Self {
        Self {
            rate: 0.0,
            seen: now,
            preparation: None,
        }
    }

    /// Someone wanted a slot.
    pub(super) fn claim(&mut self, now: Moment) {
        self.rate = self.rate(now) + 1.0 / MEMORY.as_secs_f64();
        self.seen = now;
    }

    /// Claims each second.
    pub(super) fn rate(&self, now: Moment) -> f64 {
        let fades = now.since(self.seen).as_secs_f64() / MEMORY.as_secs_f64();
        self.rate * (-fades).exp()
    }

    /// A slot took so long to prepare.
    pub(super) fn prepared(&mut self, took: Duration) {
        let took = took.as_secs_f64();
        let before = self.preparation.unwrap_or(took);
        self.preparation = Some(before + (took - before) * NEWEST);
    }

    /// How long a slot takes to prepare; nothing before the first.
    pub(super) fn preparation(&self) -> Duration {
        let seconds = self.preparation.unwrap_or(0.0);
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }

    /// How many are claimed while one is being prepared.
    pub(super) fn claims_in_a_preparation(&self, now: Moment) -> u32 {
        // Saturates. A rate that has all but faded is none.
        let claims = self.rate(now) * self.preparation.unwrap_or(0.0);
        if claims < 0.05 {
            0
        } else {
            claims.ceil() as u32
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_steady_demand_is_measured_and_fades() {
        let mut demand = Demand::new(Moment::ORIGIN);
        let mut now = Moment::ORIGIN;
        for _ in 0..3_000 {
            now = now + SECOND / 5;
            demand.claim(now);
        }
        assert!((demand.rate(now) - 5.0).abs() < 0.1);
        demand.prepared(SECOND / 2);
        assert_eq!(demand.claims_in_a_preparation(now), 3);
        assert_eq!(demand.claims_in_a_preparation(now + SECOND * 90), 1);
        assert_eq!(demand.claims_in_a_preparation(now + SECOND * 600), 0);
    }

    #[test]
    fn nothing_is_known_at_first() {
        let mut demand = Demand::new(Moment::ORIGIN);
        demand.claim(Moment::ORIGIN);
        assert_eq!(demand.claims_in_a_preparation(Moment::ORIGIN), 0);
        assert_eq!(demand.preparation(), Duration::ZERO);
    }

    #[test]
    fn one_odd_preparation_does_not_count_for_all() {
        let mut demand = Demand::new(Moment::ORIGIN);
        demand.prepared(SECOND);
        demand.prepared(SECOND * 9);
        assert_eq!(demand.preparation(), SECOND * 2);
    }
}
