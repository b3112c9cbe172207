//! One program of a sandbox, from its start to its end.

use std::sync::{Arc, Mutex, PoisonError};

use firelane_guest_proto::message::{AttachSpec, Attached};
use firelane_model::id::ExecId;
use firelane_store::live::LiveLog;
use firelane_vmm::session::{Event as Told, Exec as Stream, Session, SessionError};
use firelane_wire::event::{End, Event, Input};
use firelane_wire::exec::Exec;
use firelane_wire::problem::{Code, Problem};
use firelane_wire::run::{Ending, Origin, Ran};
use jiff::Timestamp;
use tokio::sync::mpsc;

use super::here::{Here, Order, Use};
use crate::Agent;
use crate::feed::{self, Feed};
use crate::problem::from_session;

/// Inputs that may wait for a program; who sends more waits.
const QUEUED_INPUTS: usize = 16;
/// What the log of a program may hold beside what it writes, in bytes.
const LOG_SLACK: u64 = 1 << 20;
/// What is kept of the output of a program that went on in a clone: its bounds are not told.
const ADOPTED_LOG_BYTES: u64 = 2 << 20;

/// A program, as everybody sees it.
pub(super) struct Running {
    pub(super) id: ExecId,
    pub(super) log: LiveLog,
    pub(super) input: mpsc::Sender<Input>,
    started: Timestamp,
    end: Mutex<Option<End>>,
}

/// A program that runs and that nobody follows yet.
pub(super) struct Program {
    pub(super) id: ExecId,
    pub(super) stream: Stream,
    /// Where that begins.
    pub(super) from: Attached,
    pub(super) started: Timestamp,
    /// Most bytes of its stdout and of its stderr, where they are known here.
    pub(super) output_bytes: Option<u64>,
    /// What it reads first.
    pub(super) stdin: Vec<u8>,
    /// More may follow that.
    pub(super) interactive: bool,
}

impl Running {
    pub(super) fn shown(&self) -> Exec {
        let end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        let (ending, problem) = match &*end {
            Some(End::Done { ending, .. }) => (Some(ending.clone()), None),
            Some(End::Failed(problem)) => (None, Some(problem.clone())),
            _ => (None, None),
        };
        Exec {
            id: self.id,
            running: end.is_none(),
            started_at: self.started.to_string(),
            ending,
            output: None,
            problem,
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.log.has_ended()
    }

    fn end(&self, end: End) {
        let mut kept = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        *kept = Some(end.clone());
        self.log.end(end);
    }
}

impl Program {
    /// Follows it to its end, in a task of its own. The session was lent for that.
    pub(super) fn follow(self, agent: &Arc<Agent>, mut using: Use) -> Arc<Running> {
        let (input, inputs) = mpsc::channel(QUEUED_INPUTS);
        let log_bytes = self
            .output_bytes
            .map_or(ADOPTED_LOG_BYTES, |bytes| bytes.saturating_mul(2));
        let running = Arc::new(Running {
            id: self.id,
            log: LiveLog::new(usize::try_from(log_bytes + LOG_SLACK).unwrap_or(usize::MAX)),
            input,
            started: self.started,
            end: Mutex::default(),
        });
        let here = Arc::clone(using.here());
        here.execs.insert(&running);
        let ran = ran(agent);
        running.log.append(Event::Started {
            host: ran.host.clone(),
            origin: ran.origin,
        });
        let followed = Arc::clone(&running);
        agent.tasks.spawn(async move {
            let end = self
                .run_out(&here, &mut using, &followed.log, inputs, ran)
                .await;
            followed.end(end);
            here.execs.trim();
            // Only now it may be idle.
            drop(using);
        });
        running
    }

    async fn run_out(
        self,
        here: &Here,
        using: &mut Use,
        log: &LiveLog,
        inputs: mpsc::Receiver<Input>,
        ran: Ran,
    ) -> End {
        let Program {
            id,
            stream,
            from,
            output_bytes,
            stdin,
            interactive,
            ..
        } = self;
        let mut followed = Followed {
            id,
            log,
            output_bytes,
            stdout: from.stdout_at,
            stderr: from.stderr_at,
            feed: Feed::new(stdin, interactive, inputs, from.stdin_at),
        };
        let mut told = followed.over(stream).await;
        // Each time over another session, of which there are as many as it is saved while it runs.
        while matches!(&told, Err(error) if is_cut(error)) && using.again().await {
            told = match followed.attach(&using.session).await {
                Ok(stream) => followed.over(stream).await,
                Err(error) => Err(error),
            };
        }
        match told {
            Ok(ending) => {
                forget(using, id).await;
                End::Done { ending, ran }
            }
            Err(SessionError::Refused(refused)) => {
                End::Failed(from_session(&SessionError::Refused(refused)))
            }
            Err(error) => {
                here.tell(Order::Lost {
                    session: Arc::clone(&using.session),
                });
                End::Failed(lost(&error))
            }
        }
    }
}

/// Whether a session ended of which there may be another one with the same guest.
pub(super) fn is_cut(error: &SessionError) -> bool {
    matches!(
        error,
        SessionError::Cut { .. } | SessionError::Ended { .. } | SessionError::Silent(_)
    )
}

/// Makes room for another program.
async fn forget(using: &mut Use, id: ExecId) {
    let name = id.to_string();
    let mut forgotten = using.session.forget(&name).await;
    while matches!(&forgotten, Err(error) if is_cut(error)) && using.again().await {
        forgotten = using.session.forget(&name).await;
    }
    if let Err(error) = forgotten {
        tracing::debug!(%id, %error, "a program that ended is not forgotten");
    }
}

/// What is known of a program that is followed, over whichever session.
struct Followed<'a> {
    id: ExecId,
    log: &'a LiveLog,
    output_bytes: Option<u64>,
    /// Bytes of its stdout that were taken.
    stdout: u64,
    /// The same of its stderr.
    stderr: u64,
    feed: Feed,
}

impl Followed<'_> {
    /// Follows it until it ends or the session does.
    async fn over(&mut self, mut stream: Stream) -> Result<Ending, SessionError> {
        let input = stream.stdin();
        let Followed {
            log,
            output_bytes,
            stdout,
            stderr,
            feed,
            ..
        } = self;
        tokio::select! {
            told = read(&mut stream, log, *output_bytes, stdout, stderr) => told,
            // Ends only with the session, which the reading tells better.
            never = feed::then_wait(feed.send(&input)) => match never {},
        }
    }

    /// Goes on where it was, over another session.
    async fn attach(&mut self, session: &Session) -> Result<Stream, SessionError> {
        let spec = AttachSpec {
            id: self.id.to_string(),
            stdout_from: Some(self.stdout),
            stderr_from: Some(self.stderr),
        };
        let (stream, at) = session.attach(&spec).await?;
        let expected = (self.stdout, self.stderr);
        let found = (at.stdout_at, at.stderr_at);
        if found != expected {
            let what = format!("a program goes on at {found:?} bytes, not at {expected:?}");
            return Err(SessionError::Violation { what });
        }
        if !self.feed.go_back_to(at.stdin_at) {
            let what = format!("a program took {} bytes of input", at.stdin_at);
            return Err(SessionError::Violation { what });
        }
        Ok(stream)
    }
}

/// Writes down what a program writes, until it ends, and counts it.
async fn read(
    stream: &mut Stream,
    log: &LiveLog,
    output_bytes: Option<u64>,
    stdout: &mut u64,
    stderr: &mut u64,
) -> Result<Ending, SessionError> {
    let bound = output_bytes.unwrap_or(u64::MAX);
    loop {
        match stream.next().await? {
            Told::Started => {}
            Told::Stdout(bytes) => {
                *stdout += bytes.len() as u64;
                log.append(Event::Stdout(bytes));
            }
            Told::Stderr(bytes) => {
                *stderr += bytes.len() as u64;
                log.append(Event::Stderr(bytes));
            }
            Told::Ended(outcome) => return Ok(Ending::from(&outcome)),
        }
        if (*stdout).max(*stderr) > bound {
            let what = format!("it sent more output than its limit of {bound} bytes");
            return Err(SessionError::Violation { what });
        }
    }
}

/// Attaches to what goes on, or has ended, in a clone.
pub(super) async fn adopt(session: &Session) -> Result<Vec<Program>, SessionError> {
    let mut programs = Vec::new();
    for listed in session.list().await? {
        // Names are ours; one that is not is a program's that we never started.
        let Ok(id) = listed.id.parse::<ExecId>() else {
            continue;
        };
        let spec = AttachSpec {
            id: listed.id,
            ..AttachSpec::default()
        };
        let (stream, from) = session.attach(&spec).await?;
        let started = i128::from(listed.started_ns);
        programs.push(Program {
            id,
            stream,
            from,
            started: in_ms(Timestamp::from_nanosecond(started).unwrap_or_default()),
            output_bytes: None,
            stdin: Vec::new(),
            interactive: true,
        });
    }
    Ok(programs)
}

/// A time without what nobody wants to read.
pub(super) fn in_ms(time: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(time.as_millisecond()).unwrap_or(time)
}

fn ran(agent: &Agent) -> Ran {
    let driver = agent.workshop.driver();
    Ran {
        host: agent.config.host.clone(),
        driver: driver.kind().name().into(),
        acceleration: driver.acceleration().to_string(),
        origin: Origin::Snapshot,
        phases_ms: Default::default(),
        network: None,
    }
}

fn lost(error: &SessionError) -> Problem {
    let problem = Problem::new(
        Code::Unavailable,
        format!("the program was cut off from its host: {error}"),
    );
    problem.with_remedy("see why at its sandbox, and run it again")
}
