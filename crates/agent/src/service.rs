//! The agent as a service: what it answers over the Bus, and what it tells by itself.

use std::sync::Arc;
use std::time::Duration;

use firelane_guest_proto::Lang;
use firelane_model::pool::PoolConfig;
use firelane_store::bus::{Bus, BusError, Calls, Server};
use firelane_vmm::driver::MicroVm;
use firelane_wire::bus::{FeedRun, FollowRun, ReportHost, StartRun, StopRun};
use firelane_wire::host::Host;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::load::Load;
use crate::pools::Pools;
use crate::run::Runs;
use crate::workshop::{PrepareError, Workshop};

/// How often the host tells how it is. The coordinator misses one or two before it gives up.
pub const REPORT_INTERVAL: Duration = Duration::from_secs(2);

/// What an agent is told once.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of this host: one word of a subject.
    pub host: String,
    /// Runs that it takes at once.
    pub slots: u32,
    /// What its warm pools are like.
    pub pool: PoolConfig,
    /// Templates and languages of which clones wait from the start.
    pub warm: Vec<(String, Lang)>,
}

/// One host's microVMs.
pub struct Agent {
    pub(crate) config: Config,
    pub(crate) workshop: Arc<Workshop>,
    pub(crate) pools: Pools,
    pub(crate) runs: Runs,
    pub(crate) load: Arc<Load>,
    /// Everything ends.
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

impl Agent {
    /// An agent that nobody knows of yet.
    #[must_use]
    pub fn new(config: Config, workshop: Arc<Workshop>) -> Arc<Agent> {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let load = Arc::new(Load::new(processors));
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let pools = Pools::new(
            Arc::clone(&workshop),
            config.pool,
            Arc::clone(&load),
            stop.clone(),
            tasks.clone(),
        );
        Arc::new(Agent {
            config,
            workshop,
            pools,
            runs: Runs::default(),
            load,
            stop,
            tasks,
        })
    }

    /// Prepares the templates whose clones shall wait. They are made in the background.
    ///
    /// # Errors
    /// [`PrepareError`].
    pub async fn warm_up(&self) -> Result<(), PrepareError> {
        for (template, lang) in &self.config.warm {
            let prepared = self.workshop.prepare(template).await?;
            self.pools.keep_warm(&prepared, *lang);
        }
        Ok(())
    }

    /// Answers calls for this host, and tells the coordinator that it is there, until the server is
    /// dropped.
    ///
    /// # Errors
    /// [`BusError`].
    pub async fn serve(self: &Arc<Self>, bus: Arc<dyn Bus>) -> Result<Server, BusError> {
        let mut server = Server::new(Arc::clone(&bus), &format!("agent.{}", self.config.host));
        let agent = Arc::clone(self);
        server
            .on(move |call: StartRun| {
                let agent = Arc::clone(&agent);
                async move { agent.start_run(call) }
            })
            .await?;
        let agent = Arc::clone(self);
        server
            .on(move |call: FollowRun| {
                let agent = Arc::clone(&agent);
                async move { agent.follow_run(call).await }
            })
            .await?;
        let agent = Arc::clone(self);
        server
            .on(move |call: FeedRun| {
                let agent = Arc::clone(&agent);
                async move { agent.feed_run(call).await }
            })
            .await?;
        let agent = Arc::clone(self);
        server
            .on(move |call: StopRun| {
                agent.stop_run(&call);
                std::future::ready(Ok(()))
            })
            .await?;
        self.tasks
            .spawn(report(Arc::clone(self), Calls::of(bus, "coordinator")));
        Ok(server)
    }

    /// What this host is like now.
    #[must_use]
    pub fn look(&self) -> Host {
        let driver = self.workshop.driver();
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        Host {
            id: self.config.host.clone(),
            driver: driver.kind().name().into(),
            acceleration: driver.acceleration().to_string(),
            slots: self.config.slots,
            running: count(self.runs.going()),
            sandboxes: 0,
            pools: self.pools.look(),
            version: env!("CARGO_PKG_VERSION").into(),
        }
    }

    /// Destroys a microVM without keeping anybody waiting.
    pub(crate) fn teardown(&self, vm: Box<dyn MicroVm>) {
        self.tasks.spawn(async move {
            if let Err(error) = vm.destroy().await {
                tracing::warn!(%error, "left to the next sweep");
            }
        });
    }

    /// Lets runs end until the deadline, then stops them; returns when nothing is left.
    pub async fn shut_down(&self, deadline: Instant) {
        if timeout_at(deadline, self.load.idle()).await.is_err() {
            tracing::info!("runs are stopped");
        }
        self.stop.cancel();
        self.runs.stop_all();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

async fn report(agent: Arc<Agent>, coordinator: Calls) {
    while !agent.stop.is_cancelled() {
        let call = ReportHost {
            host: agent.look(),
            draining: false,
        };
        if let Err(problem) = coordinator.ask(&call).await {
            tracing::debug!(%problem, "the coordinator does not take this host's report");
        }
        tokio::select! {
            () = sleep(REPORT_INTERVAL) => {}
            () = agent.stop.cancelled() => {}
        }
    }
}
