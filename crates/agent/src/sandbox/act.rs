//! What the owner of a sandbox does to its microVM.

use std::sync::Arc;
use std::time::Duration;

use firelane_guest_proto::SESSION_PORT;
use firelane_model::sandbox::Action;
use firelane_vmm::connect::connect;
use firelane_vmm::driver::{Death, MicroVm, SaveError, SnapshotFiles};
use firelane_vmm::session::Session;
use firelane_vmm::timeline::Timeline;
use firelane_wire::network::NetworkSeen;
use firelane_wire::problem::{Code, Problem, causes};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::here::{Change, Here, Life, Made};
use super::keep::Kept;
use super::program::{Program, adopt};
use crate::Agent;
use crate::clone::{self, Names, Ready, renew, thaw};
use crate::network::{self, GuestNetwork, Reach};
use crate::problem::{from_clone, from_prepare, from_session, internal};
use crate::snapshot::CONNECT_TIMEOUT;
use crate::workshop::Prepared;

/// How long the programs of a sandbox may take to stand still before it is saved.
const FREEZE: Duration = Duration::from_secs(10);

/// The microVM of a sandbox, while there is one.
#[derive(Default)]
pub(super) struct Held {
    vm: Option<Box<dyn MicroVm>>,
    session: Option<Arc<Session>>,
    names: Option<Names>,
    network: Option<GuestNetwork>,
    /// What happened in the networks of microVMs that are gone.
    past: Option<NetworkSeen>,
    life: Life,
}

/// Where a sandbox begins.
pub(super) enum Source {
    /// As its template's warmed guest.
    Template,
    /// As another was when it was saved.
    Kept(Box<Kept>),
}

/// What is to be done.
pub(super) enum Work {
    Create(Source),
    Pause,
    Resume,
    Save(SnapshotFiles),
    RollBack(Box<Kept>),
    Destroy,
}

impl Work {
    /// What carries out a change.
    pub(super) fn of(change: Change) -> Work {
        match change {
            Change::Pause => Work::Pause,
            Change::Resume => Work::Resume,
            Change::Destroy => Work::Destroy,
            Change::Save(files) => Work::Save(files),
            Change::RollBack(kept) => Work::RollBack(kept),
        }
    }

    /// What carries out an action that nobody asked for. The others need what they are asked for with.
    pub(super) fn unasked(action: Action) -> Option<Work> {
        match action {
            Action::Pause => Some(Work::Pause),
            Action::Resume => Some(Work::Resume),
            Action::Destroy => Some(Work::Destroy),
            Action::Create | Action::Save | Action::RollBack => None,
        }
    }

    /// What the state machine calls it.
    pub(super) fn action(&self) -> Action {
        match self {
            Work::Create(_) => Action::Create,
            Work::Pause => Action::Pause,
            Work::Resume => Action::Resume,
            Work::Save(_) => Action::Save,
            Work::RollBack(_) => Action::RollBack,
            Work::Destroy => Action::Destroy,
        }
    }
}

impl Held {
    pub(super) fn session(&self) -> Option<Arc<Session>> {
        self.session.as_ref().map(Arc::clone)
    }

    /// Which microVM it is.
    pub(super) fn life(&self) -> Life {
        self.life.clone()
    }

    /// Whether there is a microVM that nobody reaches any more.
    pub(super) fn is_cut_off(&self) -> bool {
        self.vm.is_some() && self.session.is_none()
    }

    /// Processor time that its VMM has used.
    pub(super) fn cpu(&self) -> Option<Duration> {
        self.vm.as_ref()?.cpu_time()
    }

    /// Waits until its VMM ends by itself; for ever, if there is none.
    pub(super) async fn died(&mut self) -> Death {
        match &mut self.vm {
            Some(vm) => vm.died().await,
            None => std::future::pending().await,
        }
    }

    fn parts(&mut self) -> Result<(&mut Box<dyn MicroVm>, &Session, &Names), Problem> {
        match (&mut self.vm, &self.session, &self.names) {
            (Some(vm), Some(session), Some(names)) => Ok((vm, session, names)),
            _ => Err(Problem::new(Code::Internal, "the sandbox has no microVM")),
        }
    }

    fn take(&mut self, ready: Ready) -> Arc<Session> {
        let Ready {
            vm,
            session,
            names,
            network,
        } = ready;
        let session = Arc::new(session);
        self.vm = Some(vm);
        self.session = Some(Arc::clone(&session));
        self.names = Some(names);
        self.network = network;
        self.life = Life::default();
        session
    }

    /// What has happened in its networks so far; nothing, if it has none.
    pub(super) async fn network(&self) -> Option<NetworkSeen> {
        let present = match &self.network {
            Some(network) => network.look().await,
            None => None,
        };
        self.with_past(present).map(NetworkSeen::bounded)
    }

    fn with_past(&self, present: Option<NetworkSeen>) -> Option<NetworkSeen> {
        match (self.past.clone(), present) {
            (Some(past), Some(present)) => Some(past.and_then(present)),
            (past, present) => past.or(present),
        }
    }
}

/// Programs that went on in a clone and that nobody follows yet; or why it is not done.
type Done = Result<Vec<Program>, Problem>;

/// Something that is being done to a sandbox, by a task that has its microVM meanwhile. Dropped, it is
/// not cut off, which would leave half of a microVM: it is done to its end, and what there is then is
/// destroyed.
pub(super) struct Doing {
    agent: Arc<Agent>,
    task: Option<JoinHandle<(Held, Done)>>,
}

impl Doing {
    pub(super) fn begin(agent: &Arc<Agent>, here: &Arc<Here>, mut held: Held, work: Work) -> Doing {
        let (its_agent, here) = (Arc::clone(agent), Arc::clone(here));
        let task = agent.tasks.spawn(async move {
            let done = carry_out(&its_agent, &here, &mut held, work).await;
            (held, done)
        });
        Doing {
            agent: Arc::clone(agent),
            task: Some(task),
        }
    }

    /// Waits for its end. May be dropped and called again.
    pub(super) async fn end(&mut self) -> (Held, Done) {
        let ended = match &mut self.task {
            Some(task) => task.await,
            None => std::future::pending().await,
        };
        self.task = None;
        ended.unwrap_or_else(|error| (Held::default(), Err(internal(&error))))
    }
}

impl Drop for Doing {
    fn drop(&mut self) {
        let Some(task) = self.task.take() else {
            return;
        };
        self.agent.tasks.spawn(async move {
            if let Ok((mut held, _)) = task.await
                && let Err(problem) = destroy(&mut held).await
            {
                tracing::warn!(%problem, "left to the next sweep");
            }
        });
    }
}

async fn carry_out(agent: &Agent, here: &Here, held: &mut Held, work: Work) -> Done {
    match work {
        Work::Create(source) => create(agent, here, held, source).await,
        Work::Pause => pause(held).await.map(|()| Vec::new()),
        Work::Resume => resume(held).await.map(|()| Vec::new()),
        Work::Save(files) => save(agent, held, &files).await.map(|()| Vec::new()),
        Work::RollBack(kept) => {
            let (made, files) = (kept.made(here)?, kept.unchanged_files()?);
            let reach = reach(agent, kept.template(), &made).await?;
            destroy(held).await?;
            restore(agent, held, &made, reach.as_ref(), &files).await
        }
        Work::Destroy => destroy(held).await.map(|()| Vec::new()),
    }
}

async fn create(agent: &Agent, here: &Here, held: &mut Held, source: Source) -> Done {
    // Closed never: it is as old as the agent.
    let _turn = agent.sandboxes.making.acquire().await;
    let _busy = agent.load.enter();
    match source {
        Source::Template => {
            let name = &here.request.template;
            let prepared = agent.workshop.prepare(name).await;
            let prepared = prepared.map_err(|error| from_prepare(name, &error))?;
            let id = here.id.to_string();
            let mut unseen = Timeline::start();
            let restored = agent.workshop.restore(&prepared, &id, &mut unseen).await;
            let ready = restored.map_err(|error| from_clone(&error))?;
            let _ = here.made.set(made(here, &prepared));
            held.take(ready);
            Ok(Vec::new())
        }
        Source::Kept(kept) => {
            let made = kept.made(here)?;
            let files = kept.unchanged_files()?;
            let reach = reach(agent, kept.template(), &made).await?;
            let begun = restore(agent, held, &made, reach.as_ref(), &files).await?;
            let _ = here.made.set(made);
            Ok(begun)
        }
    }
}

fn made(here: &Here, prepared: &Prepared) -> Made {
    let manifest = prepared.template.manifest();
    let mut machine = prepared.machine.clone();
    machine.id = here.id.to_string();
    let mut env = manifest.env.clone();
    env.extend(here.request.env.clone());
    Made {
        machine,
        env: env.into_iter().collect(),
        template_id: manifest.id.clone(),
    }
}

/// What a sandbox that begins from a snapshot, or goes back to one, may reach: what its template says now, which
/// is the host's owner's word, and not what it said when the snapshot was taken.
async fn reach(agent: &Agent, name: &str, made: &Made) -> Result<Option<Reach>, Problem> {
    if made.machine.network.is_none() {
        return Ok(None);
    }
    let prepared = agent.workshop.prepare(name).await;
    let prepared = prepared.map_err(|error| from_prepare(name, &error))?;
    match &prepared.reach {
        Some(reach) => Ok(Some(reach.clone())),
        None => {
            let cause = format!(
                "the snapshot was taken with a network, which the template {name:?} does not give any more"
            );
            Err(Problem::new(Code::Conflict, cause)
                .with_remedy("make a sandbox of the present template"))
        }
    }
}

async fn restore(
    agent: &Agent,
    held: &mut Held,
    made: &Made,
    reach: Option<&Reach>,
    files: &SnapshotFiles,
) -> Done {
    let driver = agent.workshop.driver();
    let mut unseen = Timeline::start();
    let restored = clone::restore(driver, &made.machine, reach, files, &mut unseen).await;
    let ready = restored.map_err(|error| from_clone(&error))?;
    let session = held.take(ready);
    adopt(&session).await.map_err(|error| from_session(&error))
}

async fn pause(held: &mut Held) -> Result<(), Problem> {
    let (vm, session, _) = held.parts()?;
    session.set_paused(true);
    let paused = vm.pause().await;
    if paused.is_err() {
        session.set_paused(false);
    }
    paused.map_err(|error| internal(&error))
}

async fn resume(held: &mut Held) -> Result<(), Problem> {
    let (vm, session, names) = held.parts()?;
    vm.resume().await.map_err(|error| internal(&error))?;
    session.set_paused(false);
    // It has slept, and does not know for how long.
    renew(session, names)
        .await
        .map_err(|error| from_clone(&error))
}

/// Saves it while its programs stand still; then they go on, or it is paused again.
async fn save(agent: &Agent, held: &mut Held, files: &SnapshotFiles) -> Result<(), Problem> {
    let (vm, session, _) = held.parts()?;
    let was_paused = session.is_paused();
    if was_paused {
        vm.resume().await.map_err(|error| internal(&error))?;
        session.set_paused(false);
    }
    let saved = match agent.workshop.driver().keeps_connections() {
        true => save_frozen(&mut **vm, session, files).await,
        false => save_cut(held, files).await,
    };
    // One that is cut off is ended.
    if was_paused && !held.is_cut_off() {
        pause(held).await?;
    }
    saved
}

async fn save_frozen(
    vm: &mut dyn MicroVm,
    session: &Session,
    files: &SnapshotFiles,
) -> Result<(), Problem> {
    session
        .freeze(FREEZE)
        .await
        .map_err(|error| from_session(&error))?;
    session.set_paused(true);
    let saved = vm.save(files).await;
    session.set_paused(false);
    // Whatever came of it, its programs go on.
    thaw(session).await.map_err(|error| from_clone(&error))?;
    match saved {
        Ok(_) => Ok(()),
        Err(error) => Err(from_save(&error)),
    }
}

/// The same with a VMM that cuts its guest off when it saves it. So it is cut off before, where nothing is under way, and
/// another session is opened; programs that were followed over the first go on over that, see [`Use::again`].
///
/// [`Use::again`]: super::here::Use::again
async fn save_cut(held: &mut Held, files: &SnapshotFiles) -> Result<(), Problem> {
    let (vm, session, _) = held.parts()?;
    // What programs were sent until now is read before the guest says that they stand still.
    let hold = timeout(FREEZE, session.hold()).await.map_err(|_| {
        let cause = "a program's input is under way and the guest does not take it";
        Problem::new(Code::Conflict, cause).retry_after(Duration::from_secs(1))
    })?;
    let frozen = session.freeze(FREEZE).await;
    frozen.map_err(|error| from_session(&error))?;
    session.cut("the sandbox was saved");
    drop(hold);
    let saved = vm.save(files).await;
    // Whatever came of it, its programs go on, or it ends.
    match reach_again(&mut **vm).await {
        Ok(session) => held.session = Some(Arc::new(session)),
        Err(reason) => {
            held.session = None;
            return Err(cut_off(&reason, saved.err()));
        }
    }
    saved.map(drop).map_err(|error| from_save(&error))
}

/// Opens a session with a frozen guest that was saved, and has it go on.
async fn reach_again(vm: &mut dyn MicroVm) -> Result<Session, String> {
    let vsock = vm.vsock_path().to_owned();
    let opened = async {
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        let stream = connect(&vsock, SESSION_PORT, deadline).await;
        let stream = stream.map_err(|error| causes(&error))?;
        let session = Session::open(stream).await;
        let session = session.map_err(|error| causes(&error))?;
        thaw(&session).await.map_err(|error| causes(&error))?;
        Ok(session)
    };
    tokio::select! {
        opened = opened => opened,
        death = vm.died() => Err(format!("its VMM ended: {death}")),
    }
}

/// Why a sandbox that was saved ends.
fn cut_off(reason: &str, save: Option<SaveError>) -> Problem {
    let save = save.map_or_else(String::new, |error| {
        format!("; it was not saved: {}", causes(&error))
    });
    let mut cause = format!(
        "the sandbox is ended: it could not be reached again after it was to be saved ({reason}){save}"
    );
    // A guest, or its VMM, may have worded a part of it.
    cause.retain(|c| !c.is_control());
    Problem::new(Code::Internal, cause).with_remedy("go on from an earlier snapshot of it")
}

async fn destroy(held: &mut Held) -> Result<(), Problem> {
    held.session = None;
    let destroyed = match held.vm.take() {
        Some(vm) => vm.destroy().await.map_err(|error| internal(&error)),
        None => Ok(()),
    };
    let last = network::close(held.network.take()).await;
    held.past = held.with_past(last);
    destroyed
}

fn from_save(error: &SaveError) -> Problem {
    match error {
        SaveError::NoSpace { .. } => {
            let problem = Problem::new(
                Code::StorageFull,
                "the host's disk has no room for the snapshot",
            );
            problem.with_remedy("remove snapshots that are not needed: DELETE /v1/snapshots/{id}")
        }
        SaveError::Unsettled => {
            Problem::new(Code::Conflict, error.to_string()).retry_after(Duration::from_secs(1))
        }
        _ => internal(error),
    }
}
