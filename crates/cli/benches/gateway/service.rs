//! What `firelane serve` is made of, but for the agent.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use firelane_coordinator::{Config, Coordinator};
use firelane_gateway::Gateway;
use firelane_gateway::listen::{self, Listener};
use firelane_model::id::KeyId;
use firelane_store::bus::{Bus, Calls, LocalBus, Server};
use firelane_store::db::Db;
use firelane_traces::Sink;
use firelane_wire::bus::MakeKey;
use firelane_wire::key::{KeyLimits, NewKey, Scope};
use std::net::SocketAddr;
use tokio::net::TcpListener;
use tokio::time::interval;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::host;

/// How often the host tells that it is there.
const REPORT: Duration = Duration::from_secs(2);
/// Runs that may wait, as `firelane serve` has it unless it is told otherwise.
const QUEUE: usize = 10_000;

/// The service on a port of its own.
pub(crate) struct Service {
    pub(crate) address: SocketAddr,
    /// A key that may ask for runs.
    pub(crate) token: String,
    coordinator: Arc<Coordinator>,
    stop: CancellationToken,
    tasks: TaskTracker,
    _servers: [Server; 2],
}

impl Service {
    /// Starts it with an empty database in this folder, and a host of so many slots.
    pub(crate) async fn start(folder: &Path, slots: u32) -> anyhow::Result<Service> {
        let bus: Arc<dyn Bus> = Arc::new(LocalBus::new());
        let db = Db::open(&folder.join("firelane.db")).await?;
        let config = Config {
            queue: QUEUE,
            queue_per_tenant: QUEUE.div_ceil(2),
            traces: Sink::off(),
        };
        let coordinator = Coordinator::new(config, Arc::clone(&bus), db).await?;
        let servers = [
            coordinator.serve().await?,
            host::serve(Arc::clone(&bus)).await?,
        ];
        let calls = Calls::of(Arc::clone(&bus), "coordinator");
        host::report(&calls, slots).await?;
        let token = make_key(&calls).await?;
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let config = firelane_gateway::Config {
            keys: true,
            owner: u32::MAX,
            traces: Sink::off(),
        };
        let gateway = Gateway::new(config, bus, stop.clone());
        gateway.show(|registry| coordinator.register(registry));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let listener = Listener::Plain(listener);
        tasks.spawn(listen::serve(
            listener,
            gateway.router(),
            stop.clone(),
            tasks.clone(),
        ));
        let reporting = stop.clone();
        tasks.spawn(async move {
            let mut ticks = interval(REPORT);
            while reporting.run_until_cancelled(ticks.tick()).await.is_some() {
                if let Err(error) = host::report(&calls, slots).await {
                    eprintln!("gateway: the host cannot report: {error}");
                }
            }
        });
        Ok(Service {
            address,
            token,
            coordinator,
            stop,
            tasks,
            _servers: servers,
        })
    }

    /// Ends it, once everything is on record.
    pub(crate) async fn settle(self) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        self.coordinator.drain(deadline).await;
        self.coordinator.settle().await;
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

async fn make_key(coordinator: &Calls) -> anyhow::Result<String> {
    let key = NewKey {
        name: "bench".into(),
        tenant: None,
        scopes: [Scope::Run].into(),
        weight: None,
        limits: KeyLimits::default(),
    };
    let actor = KeyId::from_bits(0).to_string();
    let made = coordinator.ask(&MakeKey { actor, key }).await;
    Ok(made.map_err(|problem| anyhow::anyhow!("{problem}"))?.token)
}
