//! Which call fails, and how.

use std::future::pending;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Refused as asked too often, without effect.
    Throttled,
    /// The way there broke before it was carried out.
    Lost,
    /// It was carried out, and its answer was lost.
    AnswerLost,
    /// Refused for good, without effect.
    Refused,
    /// We are killed before it is carried out.
    KilledBefore,
    /// It is carried out, and we are killed before we know.
    KilledAfter,
    /// It arrives twice, and is carried out twice.
    Twice,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Throttled,
        Self::Lost,
        Self::AnswerLost,
        Self::Refused,
        Self::KilledBefore,
        Self::KilledAfter,
        Self::Twice,
    ];

    /// Whether the process ends by it.
    pub fn kills(self) -> bool {
        matches!(self, Self::KilledBefore | Self::KilledAfter)
    }
}

/// Counts calls, and lets one of them fail, or some.
#[derive(Clone, Default)]
pub struct Faults {
    inner: Arc<Mutex<Plan>>,
    killed: Arc<Notify>,
}

#[derive(Default)]
struct Plan {
    calls: Vec<String>,
    at: Option<(usize, Fault)>,
    /// Every call may fail: one in so many does.
    dice: Option<(fastrand::Rng, u32)>,
}

impl Faults {
    /// The call with this number, from 0, fails so. Calls are counted anew.
    pub fn set(&self, at: Option<(usize, Fault)>) {
        let mut plan = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        *plan = Plan {
            at,
            ..Plan::default()
        };
    }

    /// One call in so many fails, in some way, from now on.
    pub fn roll(&self, seed: u64, one_in: u32) {
        let mut plan = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        *plan = Plan {
            dice: Some((fastrand::Rng::with_seed(seed), one_in)),
            ..Plan::default()
        };
    }

    /// The calls since faults were set, by name.
    pub fn calls(&self) -> Vec<String> {
        let plan = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        plan.calls.clone()
    }

    /// Until a fault kills us.
    pub async fn killed(&self) {
        self.killed.notified().await;
    }

    /// Counts a call; what becomes of it.
    pub(super) fn next(&self, call: &str) -> Option<Fault> {
        let mut plan = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let number = plan.calls.len();
        plan.calls.push(call.to_owned());
        if let Some((dice, one_in)) = &mut plan.dice {
            let fails = dice.u32(..*one_in) == 0;
            return dice.choice(Fault::ALL).filter(|_| fails);
        }
        plan.at
            .filter(|(at, _)| *at == number)
            .map(|(_, fault)| fault)
    }

    /// We are killed: nothing more happens in this call.
    pub(super) async fn die(&self) -> ! {
        self.killed.notify_one();
        pending().await
    }
}
