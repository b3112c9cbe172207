//! When a run reached each of its phases.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Serialize;

/// A phase that a run passes, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The VMM's process exists.
    Spawned,
    /// The VMM has its configuration and answers.
    Configured,
    /// The state of a snapshot is in place; only where one is restored.
    Loaded,
    /// The guest's processors run.
    Started,
    /// The guest-runner listens.
    GuestReady,
    /// A session with it is open.
    Connected,
    /// The clone has confirmed that it is like no other; only where a snapshot is restored.
    Renewed,
    /// The program and its files were sent.
    Sent,
    /// The outcome is here.
    Result,
    /// The microVM and all it owned are gone.
    Destroyed,
}

impl Phase {
    /// The name used in output and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Phase::Spawned => "spawned",
            Phase::Configured => "configured",
            Phase::Loaded => "loaded",
            Phase::Started => "started",
            Phase::GuestReady => "guest_ready",
            Phase::Connected => "connected",
            Phase::Renewed => "renewed",
            Phase::Sent => "sent",
            Phase::Result => "result",
            Phase::Destroyed => "destroyed",
        }
    }
}

/// The phases passed so far, each with the time since the run began.
#[derive(Clone, Debug)]
pub struct Timeline {
    start: Instant,
    marks: Vec<(Phase, Duration)>,
}

impl Timeline {
    /// A run that begins now.
    #[must_use]
    pub fn start() -> Timeline {
        Timeline {
            start: Instant::now(),
            marks: Vec::new(),
        }
    }

    /// The phase is reached now.
    pub fn mark(&mut self, phase: Phase) {
        self.marks.push((phase, self.start.elapsed()));
    }

    /// The phases in the order they were reached.
    #[must_use]
    pub fn marks(&self) -> &[(Phase, Duration)] {
        &self.marks
    }

    /// Each phase by its name, with the milliseconds since the run began.
    #[must_use]
    pub fn in_ms(&self) -> BTreeMap<String, f64> {
        let ms = |at: Duration| (at.as_secs_f64() * 1e6).round() / 1e3;
        let marks = self.marks.iter();
        marks
            .map(|(phase, at)| (phase.name().to_owned(), ms(*at)))
            .collect()
    }

    /// When the phase was reached, if it was.
    #[must_use]
    pub fn at(&self, phase: Phase) -> Option<Duration> {
        self.marks
            .iter()
            .find(|(name, _)| *name == phase)
            .map(|(_, at)| *at)
    }
}
