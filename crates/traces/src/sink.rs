//! Takes spans without waiting, and counts what becomes of them.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use tokio::sync::mpsc::{self, Receiver, Sender};

use crate::span::Span;

/// Spans that are told together, of one trace: all of them are exported, or none.
pub(crate) type Told = Vec<Span>;

/// Why spans were dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// More were told than were sent, for too long.
    Full,
    /// The collector did not take them.
    Failed,
}

impl Why {
    const fn name(self) -> &'static str {
        match self {
            Why::Full => "full",
            Why::Failed => "failed",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

/// What became of spans.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    told: AtomicU64,
    dropped: AtomicU64,
    exported: Counter,
    dropped_for: Family<Reason, Counter>,
}

impl Counts {
    pub(crate) fn exported(&self, spans: usize) {
        self.exported.inc_by(spans as u64);
    }

    pub(crate) fn dropped(&self, spans: usize, why: Why) {
        let reason = why.name();
        let counter = self.dropped_for.get_or_create(&Reason { reason });
        counter.inc_by(spans as u64);
        self.dropped.fetch_add(spans as u64, Ordering::Relaxed);
    }

    /// How many were dropped, for whatever reason.
    pub(crate) fn all_dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// How many were told of which nothing has become yet.
    pub(crate) fn pending(&self) -> u64 {
        let told = self.told.load(Ordering::Relaxed);
        told.saturating_sub(self.exported.get() + self.all_dropped())
    }
}

/// Takes spans. Clones are the same sink.
#[derive(Clone, Default)]
pub struct Sink {
    queue: Option<Sender<Told>>,
    counts: Arc<Counts>,
}

impl fmt::Debug for Sink {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Sink")
            .field("on", &self.is_on())
            .finish_non_exhaustive()
    }
}

impl Sink {
    /// One that nobody reads.
    #[must_use]
    pub fn off() -> Sink {
        Sink::default()
    }

    /// One that holds so many traces, and where they are read.
    pub(crate) fn bounded(traces: usize) -> (Sink, Receiver<Told>, Arc<Counts>) {
        let (queue, told) = mpsc::channel(traces.max(1));
        let counts = Arc::new(Counts::default());
        let sink = Sink {
            queue: Some(queue),
            counts: Arc::clone(&counts),
        };
        (sink, told, counts)
    }

    /// Whether somebody reads: if not, there is no need to make spans.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.queue.is_some()
    }

    /// Takes the spans of one trace, or drops and counts them.
    pub fn tell(&self, spans: Vec<Span>) {
        let Some(queue) = &self.queue else { return };
        self.counts
            .told
            .fetch_add(spans.len() as u64, Ordering::Relaxed);
        if let Err(refused) = queue.try_send(spans) {
            self.counts.dropped(refused.into_inner().len(), Why::Full);
        }
    }

    /// Adds what this counts to what is shown.
    pub fn register(&self, registry: &mut Registry) {
        let exported = "Spans that the collector took";
        let counts = &self.counts;
        registry.register("firelane_spans_exported", exported, counts.exported.clone());
        let dropped = "Spans that no collector got";
        registry.register(
            "firelane_spans_dropped",
            dropped,
            counts.dropped_for.clone(),
        );
    }
}
