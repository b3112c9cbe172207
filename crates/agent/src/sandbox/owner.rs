//! The task that owns a sandbox.

use std::sync::Arc;
use std::time::Duration;

use firelane_model::id::ExecId;
use firelane_model::sandbox::{Action, Asked, Event, Reason, Refused, Sandbox, State, Terms};
use firelane_model::time::Moment;
use firelane_vmm::session::Session;
use firelane_wire::bus::SandboxSeen;
use firelane_wire::problem::Problem;
use firelane_wire::sandbox::{Idle, MAX_TTL_S};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use super::act::{Doing, Held, Source, Work};
use super::here::{Change, Here, Order, Use, from_refused, policy, shown};
use crate::Agent;

/// How often processor time is looked at, at the least.
const SAMPLE: Duration = Duration::from_secs(10);
/// And at the most.
const LEAST_SAMPLE: Duration = Duration::from_millis(250);
/// How long the end of a sandbox can be asked for.
const KEPT_AFTER_END: Duration = Duration::from_secs(60);

type Reply = oneshot::Sender<Result<SandboxSeen, Problem>>;

/// What is to be done, and who waits for it.
struct Job {
    work: Work,
    reply: Option<Reply>,
}

/// The owner of one sandbox.
pub(super) struct Owner {
    agent: Arc<Agent>,
    here: Arc<Here>,
    life: Sandbox,
    inbox: mpsc::UnboundedReceiver<Order>,
    /// About the session, while something is being done.
    put_off: Vec<Order>,
    start: Instant,
    /// Processor time of VMMs that are gone.
    spent: Duration,
    sampled: Instant,
    /// When its network was last looked at.
    network_seen: Instant,
}

impl Owner {
    /// Makes the sandbox, and owns it to its end.
    pub(super) fn start(
        agent: &Arc<Agent>,
        here: Arc<Here>,
        inbox: mpsc::UnboundedReceiver<Order>,
        source: Source,
        reply: Reply,
    ) {
        let start = Instant::now();
        let terms = Terms {
            ttl: Duration::from_secs(here.request.ttl_s),
            max_ttl: Duration::from_secs(MAX_TTL_S),
            idle: here.request.idle.map(policy),
        };
        let (life, _create) = Sandbox::create(terms, Moment::ORIGIN);
        let owner = Owner {
            agent: Arc::clone(agent),
            here,
            life,
            inbox,
            put_off: Vec::new(),
            start,
            spent: Duration::ZERO,
            sampled: start,
            network_seen: start,
        };
        let job = Job {
            work: Work::Create(source),
            reply: Some(reply),
        };
        agent.tasks.spawn(owner.run(job));
    }

    async fn run(mut self, first: Job) {
        let mut held = Held::default();
        let mut next = Some(first);
        while !matches!(self.life.state(), State::Destroyed { .. }) {
            next = match next {
                Some(job) => self.carry_out(&mut held, job).await,
                None => self.wait(&mut held).await,
            };
            self.publish(&held);
            if next.is_none() {
                next = self.catch_up(&held);
            }
        }
        self.inbox.close();
        self.put_off.clear();
        let (agent, here) = (self.agent, self.here);
        tokio::select! {
            () = tokio::time::sleep(KEPT_AFTER_END) => {}
            () = agent.stop.cancelled() => {}
        }
        agent.sandboxes.forget(here.id);
    }

    fn now(&self) -> Moment {
        Moment::after_origin(self.start.elapsed())
    }

    /// Tells everybody how it is.
    fn publish(&mut self, held: &Held) {
        let state = self.life.state();
        let cpu = self.spent + held.cpu().unwrap_or_default();
        self.here.seen.send_if_modified(|seen| {
            let reason = reason(state);
            let changed = (seen.state, seen.reason) != (shown(state), reason);
            (seen.state, seen.reason) = (shown(state), reason);
            seen.revision += u64::from(changed);
            let cpu_us = u64::try_from(cpu.as_micros()).unwrap_or(u64::MAX);
            seen.cpu_us = seen.cpu_us.max(cpu_us);
            changed
        });
    }

    /// Looks at what has happened in its network: once in a while, and before a change is told.
    async fn see_network(&mut self, held: &Held) {
        self.network_seen = Instant::now();
        if let Some(network) = held.network().await {
            self.here.seen.send_if_modified(|seen| {
                seen.network = Some(network);
                // Nobody waits for it.
                false
            });
        }
    }

    fn seen(&self) -> SandboxSeen {
        self.here.seen.borrow().clone()
    }

    /// Waits until something is to be done.
    async fn wait(&mut self, held: &mut Held) -> Option<Job> {
        let deadline = self.deadline();
        let sample = self.sampled + self.sample_interval();
        let stop = self.agent.stop.clone();
        // One whose destroy failed waits for the next try.
        let ending = matches!(self.life.state(), State::Destroying { .. });
        let event = tokio::select! {
            order = self.inbox.recv() => return order.and_then(|order| self.take(order, held)),
            () = stop.cancelled(), if !ending => Event::ServiceEnds,
            death = held.died() => {
                tracing::info!(sandbox = %self.here.id, %death, "a sandbox's VMM ended");
                Event::VmmDied
            }
            () = sleep_until(deadline) => Event::Tick,
            () = sleep_until(sample) => {
                self.sampled = Instant::now();
                Event::CpuUsed(held.cpu()?)
            }
        };
        if self.network_seen.elapsed() >= SAMPLE {
            self.see_network(held).await;
        }
        self.event(event)
    }

    fn event(&mut self, event: Event) -> Option<Job> {
        // Only what was asked is refused.
        let action = self.life.apply(event, self.now()).ok().flatten()?;
        Some(Job {
            work: Work::unasked(action)?,
            reply: None,
        })
    }

    /// When time alone changes something.
    fn deadline(&self) -> Instant {
        let far = Moment::after_origin(self.start.elapsed() + SAMPLE);
        let due = self.life.next_deadline().unwrap_or(far);
        self.start + due.since(Moment::ORIGIN)
    }

    /// Often enough that work without an exec is noticed before the sandbox counts as idle.
    fn sample_interval(&self) -> Duration {
        let after = self.life.idle().map_or(SAMPLE, |policy| policy.after / 3);
        after.clamp(LEAST_SAMPLE, SAMPLE)
    }

    /// Takes in an order while nothing is being done.
    fn take(&mut self, order: Order, held: &Held) -> Option<Job> {
        match order {
            Order::Change { what, reply } => self.change(what, reply),
            Order::Terms { ttl, idle, reply } => {
                self.set(ttl, idle, reply);
                None
            }
            order => {
                self.put_off.push(order);
                self.catch_up(held)
            }
        }
    }

    fn change(&mut self, what: Change, reply: Reply) -> Option<Job> {
        let asked = Event::Asked(what.asked());
        match self.life.apply(asked, self.now()) {
            Ok(Some(_)) => Some(Job {
                work: Work::of(what),
                reply: Some(reply),
            }),
            Ok(None) => {
                answer(Some(reply), Ok(self.seen()));
                None
            }
            Err(refused) => {
                answer(Some(reply), Err(from_refused(self.here.id, &refused)));
                None
            }
        }
    }

    /// Another time and another policy; nothing is to be done for them.
    fn set(&mut self, ttl: Option<Duration>, idle: Option<Idle>, reply: Reply) {
        let now = self.now();
        let expire = ttl.map(|ttl| Event::Asked(Asked::ExpireAt(now + ttl)));
        let expired = expire.map_or(Ok(None), |expire| self.life.apply(expire, now));
        let set = match expired {
            Ok(_) => {
                self.here.set_terms(ttl, idle);
                if let Some(idle) = idle {
                    self.life.set_idle(Some(policy(idle)), now);
                }
                Ok(self.seen())
            }
            Err(refused) => Err(from_refused(self.here.id, &refused)),
        };
        answer(Some(reply), set);
    }

    /// Takes in what is about the session. A paused sandbox wakes for those who want it.
    fn catch_up(&mut self, held: &Held) -> Option<Job> {
        let begins = |order: &Order| matches!(order, Order::Begin { .. });
        match self.life.state() {
            State::Paused if self.put_off.iter().any(begins) => {
                return self.event(Event::Asked(Asked::Resume));
            }
            State::Running | State::Paused | State::Destroying { .. } | State::Destroyed { .. } => {
            }
            // What is being done leads on.
            _ => return None,
        }
        let current =
            |session: &Arc<Session>| held.session().is_some_and(|now| Arc::ptr_eq(&now, session));
        let paused = self.life.state() == State::Paused;
        let mut lost = false;
        for order in std::mem::take(&mut self.put_off) {
            match order {
                Order::Begin { id, reply } => {
                    let lent = self.lend(id, held);
                    // One that has left gives it back by dropping it.
                    let _ = reply.send(lent);
                }
                // Of an earlier microVM, that is gone with all that ran in it.
                Order::Ended { life, .. } if !held.life().is(&life) => {}
                // Of one that was cut, and another came after it.
                Order::Lost { session } if !current(&session) => {}
                Order::Ended { id, .. } => {
                    self.event(id.map_or(Event::Used, Event::ExecEnded));
                }
                Order::Lost { .. } => lost = true,
                Order::Again {
                    life,
                    session,
                    reply,
                } => {
                    let now = held.session().filter(|_| held.life().is(&life));
                    let now = now.filter(|now| !Arc::ptr_eq(now, &session));
                    if paused && now.is_some() {
                        // Nothing answers over it before it runs.
                        self.put_off.push(Order::Again {
                            life,
                            session,
                            reply,
                        });
                    } else {
                        // A program that has left needs none.
                        let _ = reply.send(now);
                    }
                }
                Order::Change { .. } | Order::Terms { .. } => {}
            }
        }
        if lost {
            tracing::warn!(sandbox = %self.here.id, "a sandbox's guest was lost");
            return self.event(Event::VmmDied);
        }
        None
    }

    fn lend(&mut self, id: Option<ExecId>, held: &Held) -> Result<Use, Problem> {
        let event = id.map_or(Event::Used, |id| Event::Asked(Asked::Exec(id)));
        let admitted = self.life.apply(event, self.now());
        match (admitted, held.session()) {
            (Ok(_), Some(session)) => {
                let (life, here) = (held.life(), Arc::clone(&self.here));
                Ok(Use::new(session, life, here, id))
            }
            (Ok(_), None) | (Err(Refused::Gone { .. }), _) => Err(self.here.gone()),
            (Err(refused), _) => Err(from_refused(self.here.id, &refused)),
        }
    }

    /// Does something to the microVM. Gives what supersedes it, if something does.
    async fn carry_out(&mut self, held: &mut Held, job: Job) -> Option<Job> {
        self.publish(held);
        let Job { work, reply } = job;
        let action = work.action();
        let is_destroy = action == Action::Destroy;
        if matches!(action, Action::Destroy | Action::RollBack) {
            // What this VMM has used goes with it.
            self.spent += held.cpu().unwrap_or_default();
        }
        let mut doing = Doing::begin(&self.agent, &self.here, std::mem::take(held), work);
        let done = loop {
            tokio::select! {
                (back, done) = doing.end() => {
                    *held = back;
                    self.see_network(held).await;
                    break done;
                }
                job = self.meanwhile(), if !is_destroy => {
                    if job.is_some() {
                        answer(reply, Err(self.here.gone()));
                        return job;
                    }
                }
            }
        };
        match done {
            Ok(programs) => {
                let next = self.event(Event::Done(action));
                for program in programs {
                    // Those that went on in a clone are followed like those that begin.
                    if let Ok(using) = self.lend(Some(program.id), held) {
                        program.follow(&self.agent, using);
                    }
                }
                self.publish(held);
                answer(reply, Ok(self.seen()));
                next
            }
            Err(problem) => {
                tracing::warn!(sandbox = %self.here.id, ?action, %problem, "could not be done");
                let mut next = self.event(Event::Failed(action));
                if next.is_none() && held.is_cut_off() {
                    next = self.event(Event::VmmDied);
                }
                self.publish(held);
                answer(reply, Err(problem));
                next
            }
        }
    }

    /// What happens while something is being done: only the end of the sandbox supersedes that.
    async fn meanwhile(&mut self) -> Option<Job> {
        let deadline = self.deadline();
        let stop = self.agent.stop.clone();
        let event = tokio::select! {
            order = self.inbox.recv() => match order? {
                Order::Change { what, reply } => return self.change(what, reply),
                Order::Terms { ttl, idle, reply } => {
                    self.set(ttl, idle, reply);
                    return None;
                }
                order => {
                    self.put_off.push(order);
                    return None;
                }
            },
            () = stop.cancelled() => Event::ServiceEnds,
            () = sleep_until(deadline) => Event::Tick,
        };
        self.event(event)
    }
}

fn answer(reply: Option<Reply>, answer: Result<SandboxSeen, Problem>) {
    if let Some(reply) = reply {
        let _ = reply.send(answer);
    }
}

fn reason(state: State) -> Option<Reason> {
    match state {
        State::Destroying { reason } | State::Destroyed { reason } => Some(reason),
        _ => None,
    }
}
