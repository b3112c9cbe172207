//! Warm pools of this host: one for each template and language that is asked for.
//!
//! One task owns each pool, does what [`firelane_model::pool::Pool`] plans, and hands out its clones.
//! Preparing a clone takes a processor for a while: it is done one at a time, and not while runs
//! have all processors. A host that is full restores for each run and has an empty pool, which is
//! less work in all.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use firelane_guest_proto::Lang;
use firelane_model::pool::{Plan, Pool, PoolConfig, SlotId};
use firelane_model::time::Moment;
use firelane_wire::host;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::load::Load;
use crate::warm::{Warm, WarmError};
use crate::workshop::{Prepared, Workshop, new_id};

/// How often a pool is looked at when nothing happens: clones grow old, demand goes down.
const LOOK: Duration = Duration::from_secs(5);
/// Claims that may wait for a pool's task.
const QUEUED_CLAIMS: usize = 256;

/// Who wants a clone, and where it is handed out.
type Claim = oneshot::Sender<Option<Warm>>;

/// The pools.
pub(crate) struct Pools {
    making: Making,
    config: PoolConfig,
    tasks: TaskTracker,
    all: Mutex<HashMap<(String, Lang), Handle>>,
}

#[derive(Clone)]
struct Handle {
    /// The template's content: clones of another are not handed out.
    template_id: String,
    config: PoolConfig,
    claims: mpsc::Sender<Claim>,
    seen: Arc<Mutex<Seen>>,
}

/// What a pool last was like, for those who look.
#[derive(Clone, Copy, Default)]
struct Seen {
    ready: u32,
    preparing: u32,
    hits: u64,
    misses: u64,
}

impl Pools {
    pub(crate) fn new(
        workshop: Arc<Workshop>,
        config: PoolConfig,
        load: Arc<Load>,
        stop: CancellationToken,
        tasks: TaskTracker,
    ) -> Pools {
        Pools {
            making: Making {
                workshop,
                load,
                turn: Arc::new(Semaphore::new(1)),
                stop,
            },
            config,
            tasks,
            all: Mutex::default(),
        }
    }

    /// A warm clone for a run, if one is ready. Each is handed out once.
    pub(crate) async fn claim(&self, prepared: &Arc<Prepared>, lang: Lang) -> Option<Warm> {
        if self.config.max == 0 {
            return None;
        }
        // The minimum is for what was asked for from the start; the rest goes by demand.
        let config = PoolConfig {
            min: 0,
            ..self.config
        };
        let handle = self.pool(prepared, lang, config);
        let (reply, answer) = oneshot::channel();
        handle.claims.send(reply).await.ok()?;
        answer.await.ok().flatten()
    }

    /// Has clones of this kind wait from now on.
    pub(crate) fn keep_warm(&self, prepared: &Arc<Prepared>, lang: Lang) {
        if self.config.max > 0 {
            self.pool(prepared, lang, self.config);
        }
    }

    /// Lets the pools of a template end; what has been claimed goes on.
    pub(crate) fn drop_of(&self, template: &str) {
        lock(&self.all).retain(|(name, _), _| name != template);
    }

    /// What the pools are like.
    pub(crate) fn look(&self) -> Vec<host::Pool> {
        let mut pools: Vec<host::Pool> = lock(&self.all)
            .iter()
            .map(|((template, lang), handle)| {
                let seen = *lock(&handle.seen);
                host::Pool {
                    template: template.clone(),
                    lang: lang.name().into(),
                    ready: seen.ready,
                    preparing: seen.preparing,
                    min: handle.config.min,
                    max: handle.config.max,
                    hits: seen.hits,
                    misses: seen.misses,
                }
            })
            .collect();
        pools.sort_by(|a, b| (&a.template, &a.lang).cmp(&(&b.template, &b.lang)));
        pools
    }

    fn pool(&self, prepared: &Arc<Prepared>, lang: Lang, config: PoolConfig) -> Handle {
        let manifest = prepared.template.manifest();
        let key = (manifest.name.clone(), lang);
        let mut all = lock(&self.all);
        match all.get(&key) {
            Some(handle) if handle.template_id == manifest.id => handle.clone(),
            // A pool of another content ends with the last handle to it, and leaves its minimum to the next.
            other => {
                let config = PoolConfig {
                    min: config.min.max(other.map_or(0, |other| other.config.min)),
                    ..config
                };
                let handle = self.start(prepared, lang, config);
                all.insert(key, handle.clone());
                handle
            }
        }
    }

    fn start(&self, prepared: &Arc<Prepared>, lang: Lang, config: PoolConfig) -> Handle {
        let (claims, asked) = mpsc::channel(QUEUED_CLAIMS);
        let seen = Arc::new(Mutex::new(Seen::default()));
        let owner = Owner {
            pool: Pool::new(config, Moment::ORIGIN),
            start: Instant::now(),
            warm: HashMap::new(),
            preparing: JoinSet::new(),
            retiring: JoinSet::new(),
            making: self.making.clone(),
            prepared: Arc::clone(prepared),
            lang,
            seen: Arc::clone(&seen),
        };
        self.tasks.spawn(owner.run(asked));
        Handle {
            template_id: prepared.template.manifest().id.clone(),
            config,
            claims,
            seen,
        }
    }
}

/// The task that owns a pool.
struct Owner {
    pool: Pool,
    start: Instant,
    warm: HashMap<SlotId, Warm>,
    preparing: JoinSet<(SlotId, Result<Warm, NotMade>)>,
    /// Those that are destroyed, with the slots that end with it.
    retiring: JoinSet<Option<SlotId>>,
    making: Making,
    prepared: Arc<Prepared>,
    lang: Lang,
    seen: Arc<Mutex<Seen>>,
}

impl Owner {
    async fn run(mut self, mut claims: mpsc::Receiver<Claim>) {
        let stop = self.making.stop.clone();
        loop {
            self.follow_plan();
            tokio::select! {
                () = stop.cancelled() => break,
                claim = claims.recv() => match claim {
                    Some(reply) => self.hand_out(reply),
                    None => break,
                },
                Some(made) = self.preparing.join_next() => self.made(made),
                Some(gone) = self.retiring.join_next() => self.gone(gone),
                () = sleep(LOOK) => {}
            }
        }
        self.end().await;
    }

    fn now(&self) -> Moment {
        Moment::after_origin(self.start.elapsed())
    }

    fn follow_plan(&mut self) {
        let Plan { start, retire } = self.pool.plan(self.now());
        for slot in start {
            let (making, prepared) = (self.making.clone(), Arc::clone(&self.prepared));
            let lang = self.lang;
            self.preparing
                .spawn(async move { (slot, making.make(&prepared, lang).await) });
        }
        for slot in retire {
            let warm = self.warm.remove(&slot);
            self.destroy(warm, Some(slot));
        }
        let (counts, totals) = (self.pool.counts(), self.pool.totals());
        *lock(&self.seen) = Seen {
            ready: counts.ready,
            preparing: counts.preparing,
            hits: totals.claimed,
            misses: totals.missed,
        };
    }

    fn hand_out(&mut self, reply: Claim) {
        let slot = self.pool.claim(self.now());
        let warm = slot.and_then(|slot| self.warm.remove(&slot));
        if let Err(warm) = reply.send(warm) {
            // Who claimed it has left; nobody else may have it.
            self.destroy(warm, None);
        }
    }

    fn made(&mut self, made: Result<(SlotId, Result<Warm, NotMade>), JoinError>) {
        let now = self.now();
        match made {
            Ok((slot, Ok(warm))) => {
                self.warm.insert(slot, warm);
                self.pool.ready(slot, now);
            }
            Ok((slot, Err(error))) => {
                if let NotMade::Failed(error) = error {
                    let error: &dyn std::error::Error = &*error;
                    tracing::warn!(lang = %self.lang, error, "cannot prepare a warm clone");
                }
                self.pool.failed(slot, now);
            }
            Err(error) => tracing::error!(%error, "a task that prepares clones failed"),
        }
    }

    fn destroy(&mut self, warm: Option<Warm>, slot: Option<SlotId>) {
        self.retiring.spawn(async move {
            if let Some(warm) = warm {
                warm.destroy().await;
            }
            slot
        });
    }

    fn gone(&mut self, gone: Result<Option<SlotId>, JoinError>) {
        match gone {
            Ok(Some(slot)) => {
                self.pool.gone(slot);
            }
            Ok(None) => {}
            Err(error) => tracing::error!(%error, "a task that destroys clones failed"),
        }
    }

    /// Destroys everything. What is being prepared is waited for: only then it can be destroyed whole.
    async fn end(mut self) {
        while let Some(made) = self.preparing.join_next().await {
            if let Ok((_, Ok(warm))) = made {
                self.destroy(Some(warm), None);
            }
        }
        for (_, warm) in std::mem::take(&mut self.warm) {
            self.destroy(Some(warm), None);
        }
        while self.retiring.join_next().await.is_some() {}
    }
}

/// Why a clone was not made.
enum NotMade {
    Stopped,
    Failed(Box<WarmError>),
}

/// How clones are made.
#[derive(Clone)]
struct Making {
    workshop: Arc<Workshop>,
    load: Arc<Load>,
    /// One preparation at a time.
    turn: Arc<Semaphore>,
    stop: CancellationToken,
}

impl Making {
    async fn make(self, prepared: &Arc<Prepared>, lang: Lang) -> Result<Warm, NotMade> {
        let waiting = async {
            let turn = self.turn.acquire().await;
            self.load.quiet().await;
            turn
        };
        let _turn = tokio::select! {
            () = self.stop.cancelled() => return Err(NotMade::Stopped),
            turn = waiting => turn,
        };
        let made = Warm::make(&self.workshop, prepared, lang, &new_id()).await;
        made.map_err(|error| NotMade::Failed(Box::new(error)))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
