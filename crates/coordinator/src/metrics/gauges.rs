//! What is looked up whenever somebody asks: the queue, the sandboxes, the hosts and their warm pools.

use std::fmt;
use std::sync::Weak;

use firelane_wire::host::{Host, Pool, Standing};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use tokio::time::Instant;

use crate::service::Coordinator;

/// Of this coordinator, while it is there.
pub(super) struct Gauges(pub(super) Weak<Coordinator>);

impl fmt::Debug for Gauges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gauges")
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InState {
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfHost {
    host: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfPool {
    host: String,
    template: String,
    lang: String,
}

/// A number of each pool: its name, what it is, and where it is read.
type PoolNumber = (&'static str, &'static str, MetricType, fn(&Pool) -> u64);

const POOL_NUMBERS: [PoolNumber; 4] = [
    (
        "firelane_pool_ready",
        "Warm microVMs that wait.",
        MetricType::Gauge,
        |pool| pool.ready.into(),
    ),
    (
        "firelane_pool_preparing",
        "Warm microVMs that are being prepared.",
        MetricType::Gauge,
        |pool| pool.preparing.into(),
    ),
    (
        "firelane_pool_hits",
        "Claims that got a warm microVM.",
        MetricType::Counter,
        |pool| pool.hits,
    ),
    (
        "firelane_pool_misses",
        "Claims that found none.",
        MetricType::Counter,
        |pool| pool.misses,
    ),
];

/// A number of each host's VMMs that wait.
type StandingNumber = (&'static str, &'static str, MetricType, fn(&Standing) -> u64);

const STANDING_NUMBERS: [StandingNumber; 3] = [
    (
        "firelane_standing_vmms",
        "VMMs that wait for a restore.",
        MetricType::Gauge,
        |standing| standing.waiting.into(),
    ),
    (
        "firelane_standing_hits",
        "Restores that found a VMM waiting.",
        MetricType::Counter,
        |standing| standing.hits,
    ),
    (
        "firelane_standing_misses",
        "Restores that found none.",
        MetricType::Counter,
        |standing| standing.misses,
    ),
];

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(coordinator) = self.0.upgrade() else {
            return Ok(());
        };
        let (queued, slots, used, hosts, sandboxes) = {
            let now = Instant::now();
            let state = coordinator.state();
            let (slots, used) = (state.hosts.slots(now), state.hosts.given());
            let sandboxes = state.sandboxes.by_state();
            let hosts = state.hosts.list(now);
            (state.queue.len(), slots, used, hosts, sandboxes)
        };
        let gauges = [
            ("firelane_queue_runs", "Runs that wait.", queued as u64),
            ("firelane_slots", "Runs that can run at once.", slots.into()),
            ("firelane_slots_used", "Runs that hosts have.", used.into()),
            (
                "firelane_hosts",
                "Hosts that are there.",
                hosts.len() as u64,
            ),
        ];
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        let help = "Sandboxes that are not gone.";
        let kind = MetricType::Gauge;
        let mut metric = encoder.encode_descriptor("firelane_sandboxes", help, None, kind)?;
        for (state, count) in sandboxes {
            let labels = InState { state };
            ConstGauge::new(count).encode(metric.encode_family(&labels)?)?;
        }
        pools(&mut encoder, &hosts)?;
        standing(&mut encoder, &hosts)
    }
}

fn pools(encoder: &mut DescriptorEncoder<'_>, hosts: &[Host]) -> fmt::Result {
    for (name, help, kind, number) in POOL_NUMBERS {
        let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
        for host in hosts {
            for pool in &host.pools {
                let labels = OfPool {
                    host: host.id.clone(),
                    template: pool.template.clone(),
                    lang: pool.lang.clone(),
                };
                encode(metric.encode_family(&labels)?, kind, number(pool))?;
            }
        }
    }
    Ok(())
}

fn standing(encoder: &mut DescriptorEncoder<'_>, hosts: &[Host]) -> fmt::Result {
    for (name, help, kind, number) in STANDING_NUMBERS {
        let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
        for host in hosts {
            let labels = OfHost {
                host: host.id.clone(),
            };
            let of_host = metric.encode_family(&labels)?;
            encode(of_host, kind, number(&host.standing))?;
        }
    }
    Ok(())
}

fn encode(metric: MetricEncoder<'_>, kind: MetricType, number: u64) -> fmt::Result {
    match kind {
        MetricType::Counter => ConstCounter::new(number).encode(metric),
        _ => ConstGauge::new(number).encode(metric),
    }
}
