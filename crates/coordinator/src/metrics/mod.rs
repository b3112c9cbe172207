//! What is measured of runs, sandboxes, the queue, the hosts and the database. `docs/metrics.md` lists it.
//!
//! Labels have few values by their nature: states, languages, hosts and the templates that these have.
//! What callers write is never one.

mod gauges;

use std::sync::Arc;
use std::time::Duration;

use firelane_model::sandbox::Reason;
use firelane_wire::event::End;
use firelane_wire::run::{Origin, Ran};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Metric, Registry, Unit};
use tokio::time::Instant;

use crate::entry::Entry;
use crate::sandboxes::reason_name;
use crate::service::Coordinator;
use gauges::Gauges;

/// Upper bounds of what runs wait and take: 1 ms to 65 s, each twice the one before.
fn of_runs() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 17))
}

/// Upper bounds of what commits take: 0.1 ms to 1.6 s.
fn of_commits() -> Histogram {
    Histogram::new(exponential_buckets(0.0001, 2.0, 15))
}

type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    state: &'static str,
    lang: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Why {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfLang {
    lang: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ready {
    origin: &'static str,
    lang: &'static str,
}

/// What is counted as it happens.
pub(crate) struct Metrics {
    ended: Family<Ended, Counter>,
    queue: Histograms<OfLang>,
    ready: Histograms<Ready>,
    exec: Histograms<OfLang>,
    total: Histograms<OfLang>,
    commits: Histogram,
    sandboxes_created: Counter,
    sandboxes_ended: Family<Why, Counter>,
}

impl Metrics {
    pub(crate) fn new() -> Metrics {
        Metrics {
            ended: Family::default(),
            queue: Family::new_with_constructor(of_runs),
            ready: Family::new_with_constructor(of_runs),
            exec: Family::new_with_constructor(of_runs),
            total: Family::new_with_constructor(of_runs),
            commits: of_commits(),
            sandboxes_created: Counter::default(),
            sandboxes_ended: Family::default(),
        }
    }

    /// Counts a sandbox that can be used.
    pub(crate) fn sandbox_created(&self) {
        self.sandboxes_created.inc();
    }

    /// Counts a sandbox that is gone.
    pub(crate) fn sandbox_ended(&self, reason: Reason) {
        let reason = reason_name(reason);
        self.sandboxes_ended.get_or_create(&Why { reason }).inc();
    }

    /// Counts a run that is over.
    pub(crate) fn ended(&self, entry: &Entry, end: &End, steps: &Steps) {
        let lang = entry.lang.name();
        let state = Entry::state_of(end).name();
        self.ended.get_or_create(&Ended { state, lang }).inc();
        let of_lang = [
            (&self.queue, steps.queue),
            (&self.exec, steps.exec),
            (&self.total, Some(steps.total)),
        ];
        for (histograms, took) in of_lang {
            if let Some(took) = took {
                let histogram = histograms.get_or_create(&OfLang { lang });
                histogram.observe(took.as_secs_f64());
            }
        }
        if let (Some(origin), Some(took)) = (steps.origin, steps.ready) {
            let origin = origin.name();
            let histogram = self.ready.get_or_create(&Ready { origin, lang });
            histogram.observe(took.as_secs_f64());
        }
    }
}

impl Coordinator {
    /// Adds what this coordinator measures to what is shown.
    pub fn register(self: &Arc<Self>, registry: &mut Registry) {
        let metrics = &self.metrics;
        registry.register("firelane_runs", "Runs that are over", metrics.ended.clone());
        let queue = "From being asked for to a host having it";
        seconds(registry, "firelane_run_queue", queue, &metrics.queue);
        let ready = "From a host having it to a microVM of its own";
        seconds(registry, "firelane_run_ready", ready, &metrics.ready);
        let exec = "From a microVM of its own to its outcome";
        seconds(registry, "firelane_run_exec", exec, &metrics.exec);
        let total = "From being asked for to the end";
        seconds(registry, "firelane_run_total", total, &metrics.total);
        let created = "Sandboxes that could be used";
        let count = metrics.sandboxes_created.clone();
        registry.register("firelane_sandboxes_created", created, count);
        let ended = "Sandboxes that are gone";
        let count = metrics.sandboxes_ended.clone();
        registry.register("firelane_sandboxes_ended", ended, count);
        let commit = "Transactions of the database, to the disk";
        seconds(registry, "firelane_db_commit", commit, &metrics.commits);
        let commits = metrics.commits.clone();
        self.db
            .on_commit(move |took| commits.observe(took.as_secs_f64()));
        self.config.traces.register(registry);
        registry.register_collector(Box::new(Gauges(Arc::downgrade(self))));
    }
}

fn seconds(registry: &mut Registry, name: &str, help: &str, metric: &(impl Metric + Clone)) {
    registry.register_with_unit(name, help, Unit::Seconds, metric.clone());
}

/// How long the steps of a run took, those that it came to.
#[derive(Debug)]
pub(crate) struct Steps {
    /// Until a host had it.
    queue: Option<Duration>,
    origin: Option<Origin>,
    /// From there until a microVM was its own.
    ready: Option<Duration>,
    /// From there until its outcome was there.
    exec: Option<Duration>,
    total: Duration,
}

impl Steps {
    /// The steps of a run that was asked for and started at these times, and ends now.
    pub(crate) fn new(asked: Instant, started: Option<Instant>, end: &End) -> Steps {
        let ran = match end {
            End::Done { ran, .. } => Some(ran),
            _ => None,
        };
        let (ready, exec) = ran.map_or((None, None), phases);
        Steps {
            // One that never started waited until now.
            queue: Some(started.map_or_else(|| asked.elapsed(), |at| at.duration_since(asked))),
            origin: ran.map(|ran| ran.origin),
            ready,
            exec,
            total: asked.elapsed(),
        }
    }

    /// One line of the log for a run that is over; nothing of its code or of what it wrote.
    pub(crate) fn tell(&self, entry: &Entry, end: &End) {
        let ms = |took: Option<Duration>| took.map(|took| took.as_secs_f64() * 1e3);
        let (exit_code, code) = match end {
            End::Done { ending, .. } => (Some(ending.exit_code), None),
            End::Failed(problem) => (None, Some(problem.code.name())),
            End::Cancelled | End::Expired => (None, None),
        };
        tracing::info!(
            target: "firelane::run",
            run = %entry.id,
            tenant = entry.caller.tenant,
            lang = entry.lang.name(),
            template = entry.template,
            state = Entry::state_of(end).name(),
            exit_code,
            code,
            origin = self.origin.map(Origin::name),
            queue_ms = ms(self.queue),
            ready_ms = ms(self.ready),
            exec_ms = ms(self.exec),
            total_ms = ms(Some(self.total)),
            "a run is over"
        );
    }
}

/// How long a run took to be ready, and from there to its outcome.
pub(crate) fn phases(ran: &Ran) -> (Option<Duration>, Option<Duration>) {
    let at = |name: &str| ran.phases_ms.get(name).copied();
    let took = |ms: f64| Duration::try_from_secs_f64(ms / 1e3).ok();
    let ready = at("renewed").or_else(|| at("connected"));
    let exec = at("result")
        .zip(ready)
        .map(|(result, ready)| result - ready);
    (ready.and_then(took), exec.and_then(took))
}

#[cfg(test)]
mod tests {
    use super::*;
    use firelane_wire::run::Ending;

    #[tokio::test(start_paused = true)]
    async fn a_step_begins_where_the_one_before_ends() {
        let asked = Instant::now();
        tokio::time::advance(Duration::from_millis(40)).await;
        let started = Instant::now();
        tokio::time::advance(Duration::from_millis(200)).await;
        let phases_ms = [("spawned", 1.0), ("renewed", 50.0), ("result", 175.0)];
        let ran = Ran {
            phases_ms: phases_ms.map(|(name, at)| (name.into(), at)).into(),
            ..Ran::default()
        };
        let ending = Ending::default();
        let steps = Steps::new(asked, Some(started), &End::Done { ending, ran });
        let ms = |took: Option<Duration>| took.expect("it came to this step").as_millis();
        let took = [steps.queue, steps.ready, steps.exec, Some(steps.total)].map(ms);
        assert_eq!(took, [40, 50, 125, 240]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_that_expired_has_only_waited() {
        let asked = Instant::now();
        tokio::time::advance(Duration::from_millis(40)).await;
        let steps = Steps::new(asked, None, &End::Expired);
        assert_eq!(steps.queue, Some(Duration::from_millis(40)));
        assert!(steps.ready.is_none() && steps.exec.is_none() && steps.origin.is_none());
    }
}
