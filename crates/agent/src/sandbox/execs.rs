//! Programs of sandboxes: what is asked over the Bus.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use firelane_guest_proto::message::{
    AttachSpec, Attached, ExecSpec, Limits, Program as What, PtySize, RefusedCode,
};
use firelane_model::id::ExecId;
use firelane_vmm::session::{Exec as Stream, Session, SessionError};
use firelane_wire::bus::{FeedExec, FollowExec, GetExec, ListExecs, SandboxRef, StartExec};
use firelane_wire::event::LogPage;
use firelane_wire::exec::{Exec, NewExec};
use firelane_wire::problem::{Code, Problem};
use jiff::Timestamp;
use tokio::sync::mpsc::error::SendTimeoutError;

use super::here::{Made, Use};
use super::program::{Program, Running, in_ms, is_cut};
use crate::Agent;
use crate::problem::{from_content, from_session};
use crate::workshop::program_memory_bytes;

/// Working directory of a program that names none.
const WORK: &str = "/work";
/// How long the sender of input is kept waiting for a program that does not read.
const FEED_TIMEOUT: Duration = Duration::from_secs(10);
/// Programs that have ended and can still be asked about, of one sandbox.
const KEPT: usize = 32;
/// Bytes of what those have written, all together.
const KEPT_BYTES: usize = 32 << 20;

/// Programs of one sandbox: those that run, and the last that have ended.
#[derive(Default)]
pub(super) struct Execs {
    all: Mutex<BTreeMap<ExecId, Arc<Running>>>,
}

impl Execs {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<ExecId, Arc<Running>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn insert(&self, running: &Arc<Running>) {
        self.lock().insert(running.id, Arc::clone(running));
    }

    /// Forgets the oldest of those that have ended, as many as are too much.
    pub(super) fn trim(&self) {
        let mut all = self.lock();
        let (mut count, mut bytes) = (0, 0);
        // Ids are in the order in which they were given.
        let ended = all.values().rev().filter(|exec| exec.has_ended());
        let over: Vec<ExecId> = ended
            .filter(|exec| {
                count += 1;
                bytes += exec.log.bytes();
                count > 1 && (count > KEPT || bytes > KEPT_BYTES)
            })
            .map(|exec| exec.id)
            .collect();
        for id in over {
            all.remove(&id);
        }
    }

    fn get(&self, id: ExecId) -> Result<Arc<Running>, Problem> {
        let found = self.lock().get(&id).map(Arc::clone);
        found.ok_or_else(|| Problem::not_found("exec", id))
    }
}

impl Agent {
    /// Starts a program; it runs when this is answered.
    pub(crate) async fn start_exec(self: Arc<Self>, call: StartExec) -> Result<Exec, Problem> {
        let StartExec {
            sandbox,
            id,
            mut request,
        } = call;
        request.check()?;
        let here = self.sandboxes.find(&sandbox)?;
        let mut using = here.begin(Some(id)).await?;
        let made = here.made.get().ok_or_else(|| here.gone())?;
        let stdin = std::mem::take(&mut request.stdin);
        let stdin = stdin.into_bytes().map_err(|error| from_content(&error))?;
        let (interactive, output_bytes) = (request.interactive, request.output_bytes);
        let spec = spec(id, request, made)?;
        let begun = begin(&mut using, &id.to_string(), &spec).await;
        let (stream, from) = begun.map_err(|error| from_session(&error))?;
        let program = Program {
            id,
            stream,
            from,
            started: in_ms(Timestamp::now()),
            output_bytes: Some(output_bytes),
            stdin,
            interactive,
        };
        Ok(program.follow(&self, using).shown())
    }

    /// The programs of a sandbox, newest first.
    pub(crate) fn list_execs(&self, call: &ListExecs) -> Result<Vec<Exec>, Problem> {
        let here = self.sandboxes.find(&call.sandbox)?;
        let all = here.execs.lock();
        Ok(all.values().rev().map(|exec| exec.shown()).collect())
    }

    /// One program.
    pub(crate) fn get_exec(&self, call: &GetExec) -> Result<Exec, Problem> {
        Ok(self.exec(&call.sandbox, call.id)?.shown())
    }

    /// What happened to a program.
    pub(crate) async fn follow_exec(&self, call: FollowExec) -> Result<LogPage, Problem> {
        let exec = self.exec(&call.sandbox, call.id)?;
        Ok(exec.log.read(call.read).await)
    }

    /// Sends something to a program; waits a while if it does not read. Wakes the sandbox.
    pub(crate) async fn feed_exec(&self, call: FeedExec) -> Result<(), Problem> {
        let here = self.sandboxes.find(&call.sandbox)?;
        let exec = here.execs.get(call.id)?;
        if exec.has_ended() {
            return Err(Problem::new(Code::Conflict, "the program has ended"));
        }
        let _awake = here.begin(None).await?;
        match exec.input.send_timeout(call.input, FEED_TIMEOUT).await {
            Ok(()) => Ok(()),
            Err(SendTimeoutError::Closed(_)) => {
                Err(Problem::new(Code::Conflict, "the program has ended"))
            }
            Err(SendTimeoutError::Timeout(_)) => {
                let problem = Problem::new(Code::Conflict, "the program does not read its input");
                Err(problem.retry_after(FEED_TIMEOUT))
            }
        }
    }

    fn exec(&self, sandbox: &SandboxRef, id: ExecId) -> Result<Arc<Running>, Problem> {
        self.sandboxes.find(sandbox)?.execs.get(id)
    }
}

/// Starts a program, and attaches to it; over another session, if the sandbox is saved meanwhile and cut off for that.
async fn begin(
    using: &mut Use,
    name: &str,
    spec: &ExecSpec,
) -> Result<(Stream, Attached), SessionError> {
    let attach = AttachSpec {
        id: name.into(),
        ..AttachSpec::default()
    };
    let mut begun = launch(&using.session, name, spec, &attach).await;
    while matches!(&begun, Err(error) if is_cut(error)) && using.again().await {
        // Whether it was started before that is not known.
        begun = match using.session.attach(&attach).await {
            Err(SessionError::Refused(refused)) if refused.code == RefusedCode::NotFound => {
                launch(&using.session, name, spec, &attach).await
            }
            attached => attached,
        };
    }
    begun
}

async fn launch(
    session: &Session,
    name: &str,
    spec: &ExecSpec,
    attach: &AttachSpec,
) -> Result<(Stream, Attached), SessionError> {
    session.launch(name, spec).await?;
    session.attach(attach).await
}

fn spec(id: ExecId, request: NewExec, made: &Made) -> Result<ExecSpec, Problem> {
    let program = match request.lang {
        Some(lang) => What::Code {
            lang,
            source: request
                .code
                .into_bytes()
                .map_err(|error| from_content(&error))?,
            args: request.args,
        },
        None => What::Command {
            argv: request.command,
        },
    };
    let env = made.env.clone().into_iter().chain(request.env).collect();
    Ok(ExecSpec {
        trace_id: id.to_string(),
        program,
        env,
        cwd: Some(request.cwd.unwrap_or_else(|| WORK.into())),
        limits: Limits {
            timeout_ms: request.timeout_ms.unwrap_or(0),
            output_bytes: request.output_bytes,
            memory_bytes: program_memory_bytes(&made.machine, request.memory_mib),
            ..Limits::default()
        },
        pty: request.pty.map(|pty| PtySize {
            rows: pty.rows,
            cols: pty.cols,
        }),
    })
}
