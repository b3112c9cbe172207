//! The coordinator as a service.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use firelane_model::concurrency::Concurrency;
use firelane_model::id::{KeyId, RunId};
use firelane_model::queue::{FairQueue, Limits, ServiceRate};
use firelane_model::time::Moment;
use firelane_store::bus::{BusError, Calls, Server, SharedBus};
use firelane_store::db::{Db, DbError};
use firelane_store::serve_calls;
use firelane_traces::Sink;
use firelane_wire::bus::{
    AwaitRun, BuildTemplate, CancelRun, ChangeSandbox, CreateSandbox, FindBuild, FindKey,
    FindSandbox, ForkSandbox, GetRun, GetSandbox, GetSnapshot, ListHosts, ListKeys, ListRuns,
    ListSandboxes, ListSnapshots, LookQueue, LookUsage, MakeKey, PickHost, ReadRun, RemoveSnapshot,
    RemoveTemplate, ReportHost, ReserveAnswer, RevokeKey, SendRun, SettleAnswer, SubmitRun,
    TakeSnapshot,
};
use firelane_wire::problem::Problem;
use firelane_wire::queue::Queue;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::entry::Entry;
use crate::hosts::Hosts;
use crate::keys::Keys;
use crate::metrics::Metrics;
use crate::room::{Room, Waiting};
use crate::sandboxes::Sandboxes;
use crate::templates::Builds;

/// First guess of how long a run takes.
const FIRST_GUESS: Duration = Duration::from_secs(1);
/// First words of the coordinator's subjects.
const SUBJECT: &str = "coordinator";

/// What a coordinator is told once.
#[derive(Clone, Debug)]
pub struct Config {
    /// Runs that may wait.
    pub queue: usize,
    /// Runs of one tenant that may wait.
    pub queue_per_tenant: usize,
    /// Takes the spans of what is over.
    pub traces: Sink,
}

/// Why a coordinator does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The database.
    #[error(transparent)]
    Db(#[from] DbError),
    /// The Bus.
    #[error(transparent)]
    Bus(#[from] BusError),
}

/// Everything that changes, behind one lock that is never held while waiting.
pub(crate) struct State {
    pub(crate) queue: FairQueue<RunId, String, Waiting>,
    pub(crate) room: Room,
    pub(crate) runs: HashMap<RunId, Arc<Entry>>,
    pub(crate) sandboxes: Sandboxes,
    pub(crate) hosts: Hosts,
    pub(crate) service: ServiceRate,
    pub(crate) going: Concurrency<KeyId>,
    pub(crate) keys: Keys,
    pub(crate) builds: Builds,
}

/// The coordinator.
pub struct Coordinator {
    pub(crate) config: Config,
    bus: SharedBus,
    pub(crate) db: Db,
    pub(crate) metrics: Metrics,
    state: Mutex<State>,
    start: Instant,
    /// There may be something to hand out.
    pub(crate) work: Notify,
    pub(crate) stop: CancellationToken,
    /// The hosts are down: nobody is listened to any more.
    pub(crate) over: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

impl Coordinator {
    /// A coordinator that nobody knows of yet, with what the database has of keys.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn new(config: Config, bus: SharedBus, db: Db) -> Result<Arc<Coordinator>, DbError> {
        let keys = Keys::load(&db).await?;
        let limits = Limits {
            total: config.queue,
            per_tenant: config.queue_per_tenant,
            cost: NonZeroU32::MIN,
        };
        Ok(Arc::new(Coordinator {
            config,
            bus,
            db,
            metrics: Metrics::new(),
            state: Mutex::new(State {
                queue: FairQueue::new(limits),
                room: Room::default(),
                runs: HashMap::new(),
                sandboxes: Sandboxes::default(),
                hosts: Hosts::default(),
                service: ServiceRate::new(FIRST_GUESS),
                going: Concurrency::new(),
                keys,
                builds: Builds::default(),
            }),
            start: Instant::now(),
            work: Notify::new(),
            stop: CancellationToken::new(),
            over: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }))
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Time for what is counted by time.
    pub(crate) fn clock(&self) -> Moment {
        Moment::after_origin(self.start.elapsed())
    }

    /// Calls of one host's agent.
    pub(crate) fn agent(&self, host: &str) -> Calls {
        Calls::of(Arc::clone(&self.bus), &format!("agent.{host}"))
    }

    fn look(&self, call: &LookQueue) -> Queue {
        let state = self.state();
        let eta = self.eta(&state, state.queue.len());
        Queue {
            queued: state.queue.len() as u64,
            capacity: self.config.queue as u64,
            yours: state.queue.tenant_len(&call.tenant) as u64,
            capacity_per_tenant: self.config.queue_per_tenant as u64,
            running: state.hosts.given().into(),
            slots: state.hosts.slots(Instant::now()).into(),
            eta_ms: u64::try_from(eta.as_millis()).unwrap_or(u64::MAX),
        }
    }

    fn report(self: &Arc<Self>, call: ReportHost) {
        let host = call.host.id.clone();
        let is_new = self.state().hosts.report(call, Instant::now());
        if is_new {
            self.reconcile(host);
        }
        self.work.notify_one();
    }

    /// Takes no new work, and waits until no run is under way. What is on disk waits for the next
    /// start; what is not, and has no host yet, is turned away. `true`: the deadline came first.
    pub async fn drain(self: &Arc<Self>, deadline: Instant) -> bool {
        self.stop.cancel();
        self.turn_away();
        while self.state().hosts.given() > 0 {
            // Nobody else listens any more: the queue is not looked at.
            if timeout_at(deadline, self.work.notified()).await.is_err() {
                return true;
            }
        }
        false
    }

    /// Waits until everything that is over is on record. Nothing runs any more by then.
    pub async fn settle(&self) {
        self.over.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Answers over the Bus and hands out runs, until the server is dropped; first those that the
    /// database has from before.
    ///
    /// # Errors
    /// [`ServeError`].
    pub async fn serve(self: &Arc<Self>) -> Result<Server, ServeError> {
        // Nobody carries them out any more.
        self.db.release_all_answers().await?;
        self.revive().await?;
        self.revive_sandboxes().await?;
        let mut server = Server::new(Arc::clone(&self.bus), SUBJECT);
        serve_calls! { server, self;
            SubmitRun => |this, call| this.submit(call).await;
            ReadRun => |this, call| this.read(call).await;
            AwaitRun => |this, call| this.read_to_end(call).await;
            GetRun => |this, call| this.get(call).await;
            ListRuns => |this, call| this.list(call).await;
            SendRun => |this, call| this.send(call).await;
            CancelRun => |this, call| this.cancel(call).await;
            LookQueue => |this, call| Ok::<_, Problem>(this.look(&call));
            LookUsage => |this, call| this.usage(call).await;
            CreateSandbox => |this, call| this.create_sandbox(call).await;
            GetSandbox => |this, call| this.get_sandbox(call).await;
            FindSandbox => |this, call| this.find_sandbox(call).await;
            ListSandboxes => |this, call| this.list_sandboxes(call).await;
            ChangeSandbox => |this, call| this.change_sandbox(call).await;
            ForkSandbox => |this, call| this.fork_sandbox(call).await;
            TakeSnapshot => |this, call| this.take_snapshot(call).await;
            GetSnapshot => |this, call| this.get_snapshot(call).await;
            ListSnapshots => |this, call| this.list_snapshots(call).await;
            RemoveSnapshot => |this, call| this.remove_snapshot(call).await;
            ReserveAnswer => |this, call| this.reserve_answer(call).await;
            SettleAnswer => |this, call| this.settle_answer(call).await;
            PickHost => |this, call| this.pick_host(call);
            BuildTemplate => |this, call| this.build_template(call).await;
            FindBuild => |this, call| this.find_build(&call);
            RemoveTemplate => |this, call| this.remove_template(call).await;
            FindKey => |this, call| Ok::<_, Problem>(this.find_key(call.id));
            MakeKey => |this, call| this.make_key(call).await;
            ListKeys => |this, _call| Ok::<_, Problem>(this.list_keys());
            RevokeKey => |this, call| this.revoke_key(call).await;
            ReportHost => |this, call| { this.report(call); Ok::<_, Problem>(()) };
            ListHosts => |this, _call| Ok::<_, Problem>(this.state().hosts.list(Instant::now()));
        }
        self.tasks.spawn(Arc::clone(self).dispatch());
        self.tasks.spawn(Arc::clone(self).prune());
        Ok(server)
    }
}
