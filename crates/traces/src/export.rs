//! Sends spans in batches.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_otlp::{
    ExporterBuildError, Protocol, SpanExporter as OtlpExporter, WithExportConfig,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::{EnvResourceDetector, TelemetryResourceDetector};
use opentelemetry_sdk::trace::SpanExporter;
use tokio::sync::mpsc::Receiver;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::endpoint::Endpoint;
use crate::sink::{Counts, Sink, Told, Why};
use crate::span::Span;

/// Spans that make a batch full: some hundred kilobytes.
const BATCH_SPANS: usize = 512;
/// How often the log tells of what is dropped, at most.
const TOLD_EVERY: Duration = Duration::from_secs(60);
/// Name of the service, unless `OTEL_SERVICE_NAME` or `OTEL_RESOURCE_ATTRIBUTES` has another.
const SERVICE: &str = "firelane";

/// How much is held, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Traces that may wait to be sent. One has less than ten spans, and takes less than 8 KiB.
    pub traces: usize,
    /// How long a span waits for others to be sent with.
    pub delay: Duration,
    /// How long a batch may take, all attempts together.
    pub export: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            // What a machine of a few hundred runs a second has while one export times out.
            traces: 4096,
            delay: Duration::from_secs(1),
            export: Duration::from_secs(10),
        }
    }
}

/// Why spans cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// What is set in the environment contradicts itself, or asks for what there is not.
    #[error("the exporter of traces cannot be set up")]
    Setup(#[source] ExporterBuildError),
}

/// Exports what a [`Sink`] is told, as a task. Dropped, it ends without sending the rest.
#[derive(Debug)]
pub struct Exporter {
    task: JoinHandle<()>,
    stop: CancellationToken,
    counts: Arc<Counts>,
}

impl Exporter {
    /// Begins to export to this collector. Whether it is there is not asked.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(endpoint: &Endpoint, limits: Limits) -> Result<(Sink, Exporter), StartError> {
        let otlp = OtlpExporter::builder()
            .with_http()
            .with_endpoint(endpoint.url())
            .with_protocol(Protocol::HttpBinary)
            .with_timeout(limits.export)
            .build();
        let mut otlp = otlp.map_err(StartError::Setup)?;
        otlp.set_resource(&resource());
        let (sink, told, counts) = Sink::bounded(limits.traces);
        let stop = CancellationToken::new();
        let work = Work {
            otlp,
            limits,
            counts: Arc::clone(&counts),
            refused: false,
            log: Log::default(),
        };
        let task = tokio::spawn(work.run(told, stop.clone()));
        Ok((sink, Exporter { task, stop, counts }))
    }

    /// Sends what is left, and ends, by the deadline. From now on nothing is taken.
    pub async fn flush(mut self, deadline: Instant) {
        self.stop.cancel();
        if timeout_at(deadline, &mut self.task).await.is_err() {
            let spans = self.counts.pending();
            tracing::warn!(spans, "the collector did not take the last spans in time");
        }
        let dropped = self.counts.all_dropped();
        if dropped > 0 {
            tracing::info!(dropped, "spans that no collector got");
        }
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What every span has in common. The environment has the last word.
fn resource() -> Resource {
    let own = [
        KeyValue::new("service.name", SERVICE),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
    ];
    let resource = Resource::builder_empty()
        .with_attributes(own)
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_detector(Box::new(EnvResourceDetector::new()));
    match std::env::var("OTEL_SERVICE_NAME") {
        Ok(name) if !name.is_empty() => resource.with_service_name(name).build(),
        _ => resource.build(),
    }
}

struct Work {
    otlp: OtlpExporter,
    limits: Limits,
    counts: Arc<Counts>,
    /// The collector did not take the last batch.
    refused: bool,
    log: Log,
}

impl Work {
    async fn run(mut self, mut told: Receiver<Told>, stop: CancellationToken) {
        while let Some(batch) = self.batch(&mut told, &stop).await {
            self.send(batch).await;
            self.log.tell(self.counts.all_dropped());
        }
    }

    /// The next batch, when it is full or old enough; at the end what is left, and then none.
    async fn batch(
        &self,
        told: &mut Receiver<Told>,
        stop: &CancellationToken,
    ) -> Option<Vec<Span>> {
        let mut batch: Vec<Span> = Vec::new();
        let mut due = None;
        while batch.len() < BATCH_SPANS {
            let wait = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled(), if !told.is_closed() => told.close(),
                spans = told.recv() => match spans {
                    Some(spans) => {
                        due.get_or_insert_with(|| Instant::now() + self.limits.delay);
                        batch.extend(spans);
                    }
                    None => break,
                },
                () = wait => break,
            }
        }
        (!batch.is_empty()).then_some(batch)
    }

    async fn send(&mut self, batch: Vec<Span>) {
        let spans = batch.len();
        let batch = batch.into_iter().map(Into::into).collect();
        let sent = timeout(self.limits.export, self.otlp.export(batch)).await;
        let error = match sent {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("no answer in {:?}", self.limits.export)),
        };
        let refused = error.is_some();
        match error {
            None => self.counts.exported(spans),
            Some(error) => {
                self.counts.dropped(spans, Why::Failed);
                if !self.refused {
                    tracing::warn!(error, "the collector takes no spans");
                }
            }
        }
        if mem::replace(&mut self.refused, refused) && !refused {
            tracing::info!("the collector takes spans again");
        }
    }
}

/// Tells of what is dropped, now and then.
#[derive(Default)]
struct Log {
    at: Option<Instant>,
    dropped: u64,
}

impl Log {
    fn tell(&mut self, dropped: u64) {
        let is_due = self.at.is_none_or(|at| at.elapsed() >= TOLD_EVERY);
        if dropped > self.dropped && is_due {
            let more = dropped - self.dropped;
            tracing::warn!(spans = more, "spans were dropped");
            *self = Log {
                at: Some(Instant::now()),
                dropped,
            };
        }
    }
}
