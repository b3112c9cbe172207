//! The machine: one whole, in the order of its events.

use std::collections::BTreeSet;
use std::time::Duration;

use super::event::{Action, Asked, Event, Refused};
use super::idle::{Activity, IdlePolicy, Then};
use super::state::{Reason, State, Still};
use crate::id::ExecId;
use crate::time::Moment;

/// Execs that may run in one sandbox at once: each has buffers on the host, and a stream of the
/// guest's session, of which files need some too.
pub const MAX_EXECS: usize = 32;
/// The pause between two tries to destroy.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// How long a sandbox may live, and for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// How long it lives if nothing else is asked; no more than `max_ttl` counts.
    pub ttl: Duration,
    /// How long it may live in all, from its creation on.
    pub max_ttl: Duration,
    /// What happens when nobody uses it.
    pub idle: Option<IdlePolicy>,
}

/// One sandbox; see the [module](super).
#[derive(Clone, Debug)]
pub struct Sandbox {
    state: State,
    /// When its time is over.
    expires: Moment,
    /// No later than this, whatever is asked.
    latest_expiry: Moment,
    max_ttl: Duration,
    idle: Option<IdlePolicy>,
    activity: Activity,
    execs: BTreeSet<ExecId>,
    /// The destroy has failed, is not in hand, and is to be tried again then.
    try_again: Option<Moment>,
}

impl Sandbox {
    /// A new sandbox, and what is to be done for it.
    pub fn create(terms: Terms, now: Moment) -> (Self, Action) {
        let sandbox = Self {
            state: State::Creating,
            expires: now + terms.ttl.min(terms.max_ttl),
            latest_expiry: now + terms.max_ttl,
            max_ttl: terms.max_ttl,
            idle: terms.idle,
            activity: Activity::new(now),
            execs: BTreeSet::new(),
            try_again: None,
        };
        (sandbox, Action::Create)
    }

    /// A sandbox that an earlier service has left in this state. Its VMM ended with that service:
    /// what was not destroyed is now.
    pub fn left_behind(state: State, now: Moment) -> (Self, Option<Action>) {
        let terms = Terms {
            ttl: Duration::ZERO,
            max_ttl: Duration::ZERO,
            idle: None,
        };
        let (mut sandbox, _) = Self::create(terms, now);
        sandbox.state = state;
        let action = match state {
            State::Destroyed { .. } => None,
            State::Destroying { .. } => Some(Action::Destroy),
            _ => Some(sandbox.destroy(Reason::HostRestarted)),
        };
        (sandbox, action)
    }

    /// Where it is in its life.
    pub fn state(&self) -> State {
        self.state
    }

    /// What happens when nobody uses it.
    pub fn idle(&self) -> Option<IdlePolicy> {
        self.idle
    }

    /// Puts another idle policy in place of the one it has; it was used just now.
    pub fn set_idle(&mut self, idle: Option<IdlePolicy>, now: Moment) {
        self.idle = idle;
        self.activity.touch(now);
    }

    /// When its time is over.
    pub fn expires(&self) -> Moment {
        self.expires
    }

    /// The execs that run in it, by id.
    pub fn execs(&self) -> impl Iterator<Item = ExecId> {
        self.execs.iter().copied()
    }

    /// When a [`Event::Tick`] is due, if nothing happens before. `None`: there is nothing to wait for.
    pub fn next_deadline(&self) -> Option<Moment> {
        match self.state {
            State::Destroyed { .. } => None,
            State::Destroying { .. } => self.try_again,
            _ => Some(
                self.idle_at()
                    .map_or(self.expires, |idle| idle.min(self.expires)),
            ),
        }
    }

    /// Takes in one event and says what is to be done about it. Only what was asked is ever refused;
    /// what comes too late is ignored.
    pub fn apply(&mut self, event: Event, now: Moment) -> Result<Option<Action>, Refused> {
        match event {
            Event::Asked(asked) => self.asked(asked),
            Event::Done(action) => Ok(self.done(action, now)),
            Event::Failed(action) => Ok(self.failed(action, now)),
            Event::ExecEnded(id) => {
                if self.execs.remove(&id) {
                    self.activity.touch(now);
                }
                Ok(None)
            }
            Event::Used => {
                self.activity.touch(now);
                Ok(None)
            }
            Event::CpuUsed(used) => {
                let rest = self.idle.map_or(Duration::ZERO, |policy| policy.rest);
                self.activity.sample(used, rest, now);
                Ok(None)
            }
            Event::VmmDied => Ok(self.end(Reason::VmmDied)),
            Event::ServiceEnds => Ok(self.end(Reason::HostRestarted)),
            Event::Tick => Ok(self.tick(now)),
        }
    }

    fn asked(&mut self, asked: Asked) -> Result<Option<Action>, Refused> {
        match (self.state, asked) {
            (State::Destroying { .. } | State::Destroyed { .. }, Asked::Destroy) => Ok(None),
            (State::Destroying { reason } | State::Destroyed { reason }, _) => {
                Err(Refused::Gone { reason })
            }
            (_, Asked::Destroy) => Ok(Some(self.destroy(Reason::Asked))),
            (_, Asked::ExpireAt(moment)) => self.expire_at(moment),
            (State::Running, Asked::Exec(id)) => self.admit(id),
            (State::Running, Asked::Pause) => Ok(self.enter(State::Pausing, Action::Pause)),
            (State::Paused, Asked::Resume) => Ok(self.enter(State::Resuming, Action::Resume)),
            (State::Running, Asked::Save) => Ok(self.save(Still::Running)),
            (State::Paused, Asked::Save) => Ok(self.save(Still::Paused)),
            (State::Running | State::Paused, Asked::RollBack) => {
                Ok(self.enter(State::RollingBack, Action::RollBack))
            }
            // It is so already.
            (State::Running, Asked::Resume) | (State::Paused, Asked::Pause) => Ok(None),
            (state @ State::Paused, Asked::Exec(_)) => Err(Refused::WrongState { state, asked }),
            (
                state @ (State::Creating
                | State::Pausing
                | State::Resuming
                | State::Saving { .. }
                | State::RollingBack),
                _,
            ) => Err(Refused::Busy { state }),
        }
    }

    /// What is not the action in hand has been superseded, and changes nothing.
    fn done(&mut self, action: Action, now: Moment) -> Option<Action> {
        match (self.state, action) {
            (State::Creating, Action::Create) | (State::Resuming, Action::Resume) => {
                self.settle(State::Running, now);
            }
            (State::Pausing, Action::Pause) => self.settle(State::Paused, now),
            (State::Saving { from }, Action::Save) => self.settle(from.into(), now),
            (State::RollingBack, Action::RollBack) => {
                // Those of the microVM that is gone.
                self.execs.clear();
                self.settle(State::Running, now);
            }
            (State::Destroying { reason }, Action::Destroy) if self.try_again.is_none() => {
                self.execs.clear();
                self.settle(State::Destroyed { reason }, now);
            }
            _ => {}
        }
        None
    }

    fn failed(&mut self, action: Action, now: Moment) -> Option<Action> {
        match (self.state, action) {
            (State::Creating, Action::Create) | (State::RollingBack, Action::RollBack) => {
                return Some(self.destroy(Reason::Failed));
            }
            (State::Pausing, Action::Pause) => self.settle(State::Running, now),
            (State::Resuming, Action::Resume) => self.settle(State::Paused, now),
            (State::Saving { from }, Action::Save) => self.settle(from.into(), now),
            (State::Destroying { .. }, Action::Destroy) if self.try_again.is_none() => {
                self.try_again = Some(now + TRY_AGAIN_AFTER);
            }
            _ => {}
        }
        None
    }

    fn tick(&mut self, now: Moment) -> Option<Action> {
        match self.state {
            State::Destroyed { .. } => None,
            State::Destroying { .. } => {
                let due = self.try_again.is_some_and(|moment| now >= moment);
                due.then(|| {
                    self.try_again = None;
                    Action::Destroy
                })
            }
            _ if now >= self.expires => Some(self.destroy(Reason::TtlOver)),
            _ => {
                let due = self.idle_at().is_some_and(|moment| now >= moment);
                let then = self.idle.filter(|_| due)?.then;
                match then {
                    Then::Pause => self.enter(State::Pausing, Action::Pause),
                    Then::Destroy => Some(self.destroy(Reason::Idle)),
                }
            }
        }
    }

    fn expire_at(&mut self, moment: Moment) -> Result<Option<Action>, Refused> {
        if moment > self.latest_expiry {
            let most = self.max_ttl;
            return Err(Refused::OverCap { most });
        }
        self.expires = moment;
        Ok(None)
    }

    fn admit(&mut self, id: ExecId) -> Result<Option<Action>, Refused> {
        if self.execs.contains(&id) {
            return Err(Refused::ExecExists);
        }
        if self.execs.len() >= MAX_EXECS {
            return Err(Refused::TooManyExecs { limit: MAX_EXECS });
        }
        self.execs.insert(id);
        Ok(None)
    }

    /// When it has been idle for too long, should nobody use it until then.
    fn idle_at(&self) -> Option<Moment> {
        let policy = self.idle?;
        let unused = self.state == State::Running && self.execs.is_empty();
        unused.then(|| self.activity.latest() + policy.after)
    }

    fn save(&mut self, from: Still) -> Option<Action> {
        self.enter(State::Saving { from }, Action::Save)
    }

    /// Destroys it unless that is being done, or was.
    fn end(&mut self, reason: Reason) -> Option<Action> {
        match self.state {
            State::Destroying { .. } | State::Destroyed { .. } => None,
            _ => Some(self.destroy(reason)),
        }
    }

    fn destroy(&mut self, reason: Reason) -> Action {
        self.state = State::Destroying { reason };
        Action::Destroy
    }

    fn enter(&mut self, state: State, action: Action) -> Option<Action> {
        self.state = state;
        Some(action)
    }

    /// An action has ended. Whatever comes next, it was used until now.
    fn settle(&mut self, state: State, now: Moment) {
        self.state = state;
        self.activity.touch(now);
    }
}
