//! `firelane bench throughput`: complete runs each second, over HTTP, through what `firelane serve` is
//! made of: one client after the other, several at once, and several at once with a warm pool.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use firelane_agent::Agent;
use firelane_agent::service::Config as AgentConfig;
use firelane_client::{Client, Method, Target};
use firelane_coordinator::{Config as CoordinatorConfig, Coordinator};
use firelane_gateway::listen::{self, Listener};
use firelane_gateway::{Config as GatewayConfig, Gateway};
use firelane_guest_proto::Lang;
use firelane_model::pool::PoolConfig;
use firelane_store::bus::{Bus, LocalBus, Server};
use firelane_store::db::Db;
use firelane_traces::Sink;
use firelane_wire::run::{Origin, Run};
use serde::Serialize;
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::measure::source;
use super::report::{Fingerprint, fingerprint, head, keep};
use super::stats::percentiles;
use crate::args::{MachineArgs, ThroughputArgs};
use crate::failure::Failure;
use crate::host::{Host, sweep};
use crate::say::say;
use crate::signals::Signals;

/// Runs that may wait: more than there are clients.
const QUEUE: usize = 1024;
/// The pool that `firelane serve` has unless it is told otherwise.
const POOL: PoolConfig = PoolConfig {
    min: 1,
    max: 4,
    max_age: Duration::from_mins(10),
};
const NO_POOL: PoolConfig = PoolConfig {
    max: 0,
    min: 0,
    ..POOL
};
/// How often is looked whether the pool has a clone.
const LOOK: Duration = Duration::from_millis(50);
/// How long the pool may take for its first one.
const POOL_TIMEOUT: Duration = Duration::from_mins(5);

#[derive(Debug, Serialize)]
struct Measured {
    benchmark: String,
    host: Fingerprint,
    ways: Vec<Way>,
}

/// One way of asking for runs.
#[derive(Debug, Serialize)]
struct Way {
    name: &'static str,
    clients: u32,
    each_second: f64,
    /// Runs that had a clone of the pool.
    claims: usize,
    /// Milliseconds that each client waited for each run.
    took_ms: Vec<f64>,
}

pub(super) async fn throughput(args: &ThroughputArgs) -> Result<u8, Failure> {
    let mut signals = Signals::listen()?;
    let prepared = async {
        let host = Host::prepare(&MachineArgs::of_snapshot(&args.template)).await?;
        host.snapshot().await?;
        Ok::<Host, Failure>(host)
    };
    let host = tokio::select! {
        prepared = prepared => prepared?,
        number = signals.next() => return Err(interrupted(number)),
    };
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let slots = u32::try_from(2 * processors).unwrap_or(u32::MAX);
    let clients = args.clients.unwrap_or(slots);
    let mut ways = Vec::new();
    for (name, clients, pool) in [
        ("one", 1, NO_POOL),
        ("several", clients, NO_POOL),
        ("with a pool", clients, POOL),
    ] {
        let service = Service::start(&host, args, clients.max(slots), pool).await?;
        let measured = tokio::select! {
            measured = service.measure(name, clients, args) => measured,
            number = signals.next() => Err(interrupted(number)),
        };
        service.end().await;
        ways.push(measured?);
    }
    let measured = Measured {
        benchmark: format!("throughput {}", args.lang),
        host: fingerprint(&host, None)?,
        ways,
    };
    tell(&measured)?;
    keep(&measured, args.json.as_deref())?;
    Ok(0)
}

fn interrupted(number: i32) -> Failure {
    sweep();
    Failure::interrupted(number)
}

/// Gateway, coordinator and agent, for nobody else.
struct Service {
    socket: PathBuf,
    agent: Arc<Agent>,
    coordinator: Arc<Coordinator>,
    stop: CancellationToken,
    tasks: TaskTracker,
    _servers: [Server; 2],
    _folder: TempDir,
}

impl Service {
    async fn start(
        host: &Host,
        args: &ThroughputArgs,
        slots: u32,
        pool: PoolConfig,
    ) -> Result<Service, Failure> {
        let folder = tempfile::tempdir().map_err(Failure::platform)?;
        let bus: Arc<dyn Bus> = Arc::new(LocalBus::new());
        let db = Db::open(&folder.path().join("firelane.db")).await?;
        let config = CoordinatorConfig {
            queue: QUEUE,
            queue_per_tenant: QUEUE,
            traces: Sink::off(),
        };
        let coordinator = Coordinator::new(config, Arc::clone(&bus), db).await;
        let coordinator = coordinator.map_err(Failure::platform)?;
        let name = host.template.manifest().name.clone();
        let config = AgentConfig {
            host: "bench".into(),
            slots,
            pool,
            warm: (pool.max > 0)
                .then_some((name, args.lang))
                .into_iter()
                .collect(),
            sandboxes: 0,
            keep: folder.path().join("snapshots"),
        };
        let agent = Agent::new(config, Arc::new(host.workshop()));
        let servers = [
            coordinator.serve().await.map_err(Failure::platform)?,
            agent
                .serve(Arc::clone(&bus))
                .await
                .map_err(Failure::platform)?,
        ];
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let config = GatewayConfig {
            keys: true,
            owner: rustix::process::geteuid().as_raw(),
            traces: Sink::off(),
        };
        let gateway = Gateway::new(config, bus, stop.clone());
        let socket = folder.path().join("socket");
        let listener = Listener::Local(UnixListener::bind(&socket).map_err(Failure::platform)?);
        let router = gateway.router();
        tasks.spawn(listen::serve(listener, router, stop.clone(), tasks.clone()));
        Ok(Service {
            socket,
            agent,
            coordinator,
            stop,
            tasks,
            _servers: servers,
            _folder: folder,
        })
    }

    async fn measure(
        &self,
        name: &'static str,
        clients: u32,
        args: &ThroughputArgs,
    ) -> Result<Way, Failure> {
        self.agent.warm_up().await.map_err(Failure::platform)?;
        self.pool_is_there().await?;
        let (start, mut asking) = (Instant::now(), JoinSet::new());
        let end = start + Duration::from_secs(args.seconds.into());
        for _ in 0..clients {
            let client = Client::new(Target::Unix(self.socket.clone()), None);
            asking.spawn(ask_until(client, args.lang, args.template.clone(), end));
        }
        let (mut took_ms, mut claims) = (Vec::new(), 0);
        while let Some(asked) = asking.join_next().await {
            for (took, origin) in asked.map_err(Failure::platform)?? {
                took_ms.push(took.as_secs_f64() * 1e3);
                claims += usize::from(origin == Origin::Pool);
            }
        }
        Ok(Way {
            name,
            clients,
            // Until the last has ended: what is under way at the end counts, and so does its time.
            each_second: took_ms.len() as f64 / start.elapsed().as_secs_f64(),
            claims,
            took_ms,
        })
    }

    /// Waits until every pool that there is has a clone.
    async fn pool_is_there(&self) -> Result<(), Failure> {
        let deadline = Instant::now() + POOL_TIMEOUT;
        while self.agent.look().pools.iter().any(|pool| pool.ready == 0) {
            if Instant::now() > deadline {
                return Err(Failure::platform(anyhow::anyhow!("the pool stays empty")));
            }
            sleep(LOOK).await;
        }
        Ok(())
    }

    /// Ends it with everything that it has.
    async fn end(self) {
        self.coordinator.drain(Instant::now()).await;
        self.agent.shut_down(Instant::now()).await;
        self.coordinator.settle().await;
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Asks for one run after the other: how long each took, and where its microVM came from.
async fn ask_until(
    client: Client,
    lang: Lang,
    template: String,
    end: Instant,
) -> Result<Vec<(Duration, Origin)>, Failure> {
    let request = serde_json::json!({ "lang": lang, "code": source(lang), "template": template });
    let body = serde_json::to_vec(&request).map_err(Failure::platform)?;
    let mut runs = Vec::new();
    while Instant::now() < end {
        let start = Instant::now();
        let answer = client
            .send(Method::POST, "/v1/runs", Some(body.clone().into()), &[])
            .await
            .map_err(Failure::platform)?;
        let took = start.elapsed();
        let run = serde_json::from_slice::<Run>(&answer.body).ok();
        let outcome = run.and_then(|run| run.outcome);
        match outcome.filter(|outcome| outcome.ending.exit_code == 0 && outcome.stdout == "42\n") {
            Some(outcome) => runs.push((took, outcome.ran.origin)),
            None => {
                let answer = String::from_utf8_lossy(&answer.body).into_owned();
                return Err(Failure::platform(anyhow::anyhow!(
                    "the measured program failed: {answer}"
                )));
            }
        }
    }
    Ok(runs)
}

fn tell(measured: &Measured) -> Result<(), Failure> {
    head(&measured.benchmark, &measured.host)?;
    say(format_args!(
        "{:>12} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}   (runs each second; ms that a client waits)",
        "", "clients", "each s", "p50", "p99", "runs", "claims"
    ))?;
    for way in &measured.ways {
        let [p50, p99] = percentiles(&way.took_ms, [50, 99]);
        say(format_args!(
            "{:>12} {:>8} {:>8.2} {p50:>8.1} {p99:>8.1} {:>8} {:>8}",
            way.name,
            way.clients,
            way.each_second,
            way.took_ms.len(),
            way.claims
        ))?;
    }
    let [one, several, pool] = [0, 1, 2].map(|way| measured.ways[way].each_second);
    say(format_args!(
        "several are {:.2} times one, with a pool {:.2} times",
        several / one,
        pool / one
    ))
}
