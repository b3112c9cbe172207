//! The agent as a service: what it answers over the Bus, and what it tells by itself.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use firelane_guest_proto::Lang;
use firelane_model::pool::PoolConfig;
use firelane_store::bus::{Bus, BusError, Calls, Server};
use firelane_store::serve_calls;
use firelane_vmm::driver::MicroVm;
use firelane_wire::bus::{
    ClosePipe, DropSnapshot, DropTemplate, FeedExec, FeedRun, FinishPipe, FollowExec, FollowRun,
    GetExec, GetTemplate, HaveSnapshots, ListExecs, ListFolder, ListTemplates, LookSandbox,
    MakeFolder, MakeSandbox, MoveFile, OpenPipe, ReadBuild, ReadPipe, RemoveFile, ReportHost,
    SaveSandbox, SplitSandbox, StartBuild, StartExec, StartRun, StatFile, StopRun, TellSandbox,
    WritePipe,
};
use firelane_wire::host::Host;
use firelane_wire::problem::Problem;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::load::Load;
use crate::network::{self, GuestNetwork};
use crate::pools::Pools;
use crate::run::Runs;
use crate::sandbox::Sandboxes;
use crate::templates::Builds;
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
    /// Sandboxes that it has at once.
    pub sandboxes: u32,
    /// Folder of the snapshots of sandboxes.
    pub keep: PathBuf,
}

/// Why an agent does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The Bus.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The folder of the snapshots of sandboxes.
    #[error("cannot use the folder of snapshots")]
    Keep(#[from] std::io::Error),
}

/// One host's microVMs.
pub struct Agent {
    pub(crate) config: Config,
    pub(crate) workshop: Arc<Workshop>,
    pub(crate) pools: Pools,
    pub(crate) runs: Runs,
    pub(crate) sandboxes: Sandboxes,
    pub(crate) builds: Builds,
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
        let signing = workshop.store().signing().clone();
        let sandboxes = Sandboxes::new(config.sandboxes, config.keep.clone(), signing);
        Arc::new(Agent {
            config,
            workshop,
            pools,
            runs: Runs::default(),
            sandboxes,
            builds: Builds::default(),
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
    /// [`ServeError`].
    pub async fn serve(self: &Arc<Self>, bus: Arc<dyn Bus>) -> Result<Server, ServeError> {
        self.sandboxes.sweep()?;
        let mut server = Server::new(Arc::clone(&bus), &format!("agent.{}", self.config.host));
        serve_calls! { server, self;
            StartRun => |this, call| this.start_run(call);
            FollowRun => |this, call| this.follow_run(call).await;
            FeedRun => |this, call| this.feed_run(call).await;
            StopRun => |this, call| { this.stop_run(&call); Ok::<_, Problem>(()) };
            MakeSandbox => |this, call| this.make_sandbox(call).await;
            LookSandbox => |this, call| this.look_sandbox(call).await;
            TellSandbox => |this, call| this.tell_sandbox(call).await;
            SaveSandbox => |this, call| this.save_sandbox(call).await;
            SplitSandbox => |this, call| this.split_sandbox(call).await;
            HaveSnapshots => |this, _call| this.have_snapshots();
            DropSnapshot => |this, call| this.drop_snapshot(&call);
            StartExec => |this, call| this.start_exec(call).await;
            ListExecs => |this, call| this.list_execs(&call);
            GetExec => |this, call| this.get_exec(&call);
            FollowExec => |this, call| this.follow_exec(call).await;
            FeedExec => |this, call| this.feed_exec(call).await;
            StatFile => |this, call| this.stat_file(call).await;
            ListFolder => |this, call| this.list_folder(call).await;
            MakeFolder => |this, call| this.make_folder(call).await;
            MoveFile => |this, call| this.move_file(call).await;
            RemoveFile => |this, call| this.remove_file(call).await;
            OpenPipe => |this, call| this.open_pipe(call).await;
            WritePipe => |this, call| this.write_pipe(call).await;
            FinishPipe => |this, call| this.finish_pipe(call).await;
            ReadPipe => |this, call| this.read_pipe(call).await;
            ListTemplates => |this, _call| this.list_templates().await;
            GetTemplate => |this, call| this.get_template(call).await;
            DropTemplate => |this, call| this.drop_template(call).await;
            StartBuild => |this, call| this.start_build(call);
            ReadBuild => |this, call| this.read_build(call).await;
            ClosePipe => |this, call| { this.close_pipe(&call); Ok::<_, Problem>(()) };
        }
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
            sandboxes: count(self.sandboxes.going()),
            pools: self.pools.look(),
            standing: self.workshop.standing().look(),
            version: env!("CARGO_PKG_VERSION").into(),
        }
    }

    /// Destroys a microVM without keeping anybody waiting.
    pub(crate) fn teardown(&self, vm: Box<dyn MicroVm>, network: Option<GuestNetwork>) {
        self.tasks.spawn(async move {
            if let Err(error) = vm.destroy().await {
                tracing::warn!(%error, "left to the next sweep");
            }
            network::close(network).await;
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
        self.workshop.close().await;
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
