//! What everybody knows of a sandbox, and how its owner is asked.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use firelane_model::id::{ExecId, SandboxId};
use firelane_model::sandbox::{Asked, IdlePolicy, Refused, State, Then};
use firelane_vmm::session::Session;
use firelane_wire::bus::SandboxSeen;
use firelane_wire::problem::{Code, Problem};
use firelane_wire::sandbox::{Idle, IdleThen, NewSandbox, SandboxState};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::execs::Execs;
use super::keep::Kept;
use firelane_vmm::driver::{Machine, SnapshotFiles};

/// Processor time in each second up to which a guest counts as at rest. An emulated one that does
/// nothing uses some ten milliseconds for its timers.
const REST: Duration = Duration::from_millis(50);
/// When a sandbox that is busy is worth another try.
const BUSY_RETRY: Duration = Duration::from_secs(1);

/// A sandbox of this host.
pub(super) struct Here {
    pub(super) id: SandboxId,
    pub(super) tenant: String,
    pub(super) request: NewSandbox,
    /// What it was made of, once it is made.
    pub(super) made: OnceLock<Made>,
    pub(super) execs: Execs,
    /// When its time is over, and what happens when it does nothing.
    terms: Mutex<(Instant, Option<Idle>)>,
    /// Each sender waits for its answer, so that there are no more than calls at once.
    orders: mpsc::UnboundedSender<Order>,
    pub(super) seen: watch::Sender<SandboxSeen>,
}

/// What a sandbox was made of.
#[derive(Clone)]
pub(super) struct Made {
    /// Its machine, with its name.
    pub(super) machine: Machine,
    /// Variables of every program: the template's, and over them the sandbox's own.
    pub(super) env: BTreeMap<String, String>,
    /// Content of its template.
    pub(super) template_id: String,
}

/// What the owner of a sandbox is told.
pub(super) enum Order {
    /// Somebody wants a change.
    Change {
        what: Change,
        reply: oneshot::Sender<Result<SandboxSeen, Problem>>,
    },
    /// Somebody gives it another time or policy.
    Terms {
        ttl: Option<Duration>,
        idle: Option<Idle>,
        reply: oneshot::Sender<Result<SandboxSeen, Problem>>,
    },
    /// Somebody wants to use its session, for a program of this name or for something short. Wakes it.
    Begin {
        id: Option<ExecId>,
        reply: oneshot::Sender<Result<Use, Problem>>,
    },
    /// Somebody does not use the session of this microVM any more.
    Ended { id: Option<ExecId>, life: Life },
    /// This session with that microVM was cut; somebody wants the one that came after it, if there is one.
    Again {
        life: Life,
        session: Arc<Session>,
        reply: oneshot::Sender<Option<Arc<Session>>>,
    },
    /// This session broke: what runs in the sandbox cannot be trusted any more.
    Lost { session: Arc<Session> },
}

/// One microVM of a sandbox, whatever sessions there are with it.
#[derive(Clone, Default)]
pub(super) struct Life(Arc<()>);

impl Life {
    pub(super) fn is(&self, other: &Life) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// What can change in a sandbox.
pub(super) enum Change {
    Pause,
    Resume,
    Destroy,
    /// Its memory and state go to these files, which do not exist yet.
    Save(SnapshotFiles),
    RollBack(Box<Kept>),
}

impl Here {
    pub(super) fn new(
        id: SandboxId,
        tenant: String,
        request: NewSandbox,
    ) -> (Here, mpsc::UnboundedReceiver<Order>) {
        let (orders, inbox) = mpsc::unbounded_channel();
        let (seen, _) = watch::channel(SandboxSeen {
            state: SandboxState::Creating,
            reason: None,
            revision: 1,
            cpu_us: 0,
            network: None,
        });
        let expires = Instant::now() + Duration::from_secs(request.ttl_s);
        let here = Here {
            id,
            tenant,
            terms: Mutex::new((expires, request.idle)),
            request,
            made: OnceLock::new(),
            execs: Execs::default(),
            orders,
            seen,
        };
        (here, inbox)
    }

    /// What a fork of it is asked to be: it ends when this one does.
    pub(super) fn forked(&self) -> NewSandbox {
        let (expires, idle) = *self.lock_terms();
        let left = expires.saturating_duration_since(Instant::now());
        NewSandbox {
            ttl_s: left.as_secs() + u64::from(left.subsec_nanos() > 0),
            idle,
            ..self.request.clone()
        }
    }

    /// Its time or its policy was changed.
    pub(super) fn set_terms(&self, ttl: Option<Duration>, idle: Option<Idle>) {
        let mut terms = self.lock_terms();
        if let Some(ttl) = ttl {
            terms.0 = Instant::now() + ttl;
        }
        terms.1 = idle.or(terms.1);
    }

    fn lock_terms(&self) -> MutexGuard<'_, (Instant, Option<Idle>)> {
        self.terms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_gone(&self) -> bool {
        self.seen.borrow().state == SandboxState::Destroyed
    }

    /// Has the owner do something, and waits until it is done.
    pub(super) async fn change(&self, what: Change) -> Result<SandboxSeen, Problem> {
        let (reply, answer) = oneshot::channel();
        self.tell(Order::Change { what, reply });
        answer.await.unwrap_or_else(|_| Err(self.gone()))
    }

    /// Gives it another time or policy; what is absent stays.
    pub(super) async fn set(
        &self,
        ttl: Option<Duration>,
        idle: Option<Idle>,
    ) -> Result<SandboxSeen, Problem> {
        let (reply, answer) = oneshot::channel();
        self.tell(Order::Terms { ttl, idle, reply });
        answer.await.unwrap_or_else(|_| Err(self.gone()))
    }

    /// Its session: for a program of this name, or for something short.
    pub(super) async fn begin(&self, id: Option<ExecId>) -> Result<Use, Problem> {
        let (reply, answer) = oneshot::channel();
        self.tell(Order::Begin { id, reply });
        answer.await.unwrap_or_else(|_| Err(self.gone()))
    }

    pub(super) fn tell(&self, order: Order) {
        // An owner that is gone needs no telling.
        let _ = self.orders.send(order);
    }

    /// Why nothing can be done with it any more.
    pub(super) fn gone(&self) -> Problem {
        let reason = self.seen.borrow().reason;
        let cause = reason.map_or_else(
            || format!("{} is gone", self.id),
            |reason| format!("{} is gone: {reason}", self.id),
        );
        Problem::new(Code::NotFound, cause).with_remedy("make another one: POST /v1/sandboxes")
    }
}

/// The session of a sandbox, for as long as this is held. It keeps the sandbox from being idle.
pub(super) struct Use {
    pub(super) session: Arc<Session>,
    life: Life,
    here: Arc<Here>,
    id: Option<ExecId>,
}

impl Use {
    pub(super) fn new(
        session: Arc<Session>,
        life: Life,
        here: Arc<Here>,
        id: Option<ExecId>,
    ) -> Use {
        Use {
            session,
            life,
            here,
            id,
        }
    }

    /// Takes the session that came after this one, which has ended: a VMM that saves a microVM may cut it off. Waits
    /// until that is done and the microVM runs. Gives whether there is one.
    pub(super) async fn again(&mut self) -> bool {
        let (reply, answer) = oneshot::channel();
        self.here.tell(Order::Again {
            life: self.life.clone(),
            session: Arc::clone(&self.session),
            reply,
        });
        match answer.await {
            Ok(Some(session)) => {
                self.session = session;
                true
            }
            Ok(None) | Err(_) => false,
        }
    }

    pub(super) fn here(&self) -> &Arc<Here> {
        &self.here
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        self.here.tell(Order::Ended {
            id: self.id,
            life: self.life.clone(),
        });
    }
}

/// A state as it is told.
pub(super) fn shown(state: State) -> SandboxState {
    match state {
        State::Creating => SandboxState::Creating,
        State::Running => SandboxState::Running,
        State::Pausing => SandboxState::Pausing,
        State::Paused => SandboxState::Paused,
        State::Resuming => SandboxState::Resuming,
        State::Saving { .. } => SandboxState::Saving,
        State::RollingBack => SandboxState::RollingBack,
        State::Destroying { .. } => SandboxState::Destroying,
        State::Destroyed { .. } => SandboxState::Destroyed,
    }
}

/// A policy as the state machine takes it.
pub(super) fn policy(idle: Idle) -> IdlePolicy {
    IdlePolicy {
        after: Duration::from_secs(idle.after_s),
        rest: REST,
        then: match idle.then {
            IdleThen::Pause => Then::Pause,
            IdleThen::Destroy => Then::Destroy,
        },
    }
}

/// Why something that was asked is not done.
pub(super) fn from_refused(id: SandboxId, refused: &Refused) -> Problem {
    let cause = format!("{id}: {refused}");
    match refused {
        Refused::Gone { .. } => Problem::new(Code::NotFound, cause),
        Refused::Busy { .. } | Refused::TooManyExecs { .. } => {
            Problem::new(Code::Conflict, cause).retry_after(BUSY_RETRY)
        }
        Refused::WrongState { .. } | Refused::ExecExists => Problem::new(Code::Conflict, cause),
        Refused::OverCap { .. } => Problem::new(Code::Invalid, cause),
    }
}

impl Change {
    /// What the state machine is asked.
    pub(super) fn asked(&self) -> Asked {
        match self {
            Change::Pause => Asked::Pause,
            Change::Resume => Asked::Resume,
            Change::Destroy => Asked::Destroy,
            Change::Save(_) => Asked::Save,
            Change::RollBack(_) => Asked::RollBack,
        }
    }
}
