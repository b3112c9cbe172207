//! A VMM that firelane-hostd has started for us.
//!
//! The connection over which it was started is its lease: while that is open the VMM lives, and it ends with
//! it, however we end. hostd answers within milliseconds, but it is asked from threads that may wait.

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use firelane_host_proto::message::{Code, Reply, Request as Asked, Role, Start, Told, Vmm};
use firelane_host_proto::{CallError, Client};
use firelane_launch::machine::Shape;
use firelane_sys::cgroup::Cgroups;
use firelane_sys::jail::{Control, Controls, State as ControlState};
use firelane_sys::process::ProcessId;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::task::spawn_blocking;

use crate::driver::{BootError, Death};
use crate::tail::Tail;

/// How long a VMM that has closed its files may take to end.
const STAY: Duration = Duration::from_secs(1);
/// How often that is looked at.
const POLL: Duration = Duration::from_millis(1);

/// What hostd is asked to start, and the descriptors that go along.
#[derive(Debug)]
pub(crate) struct Request {
    start: Start,
    descriptors: Vec<OwnedFd>,
}

impl Request {
    pub(crate) fn new(shape: Shape, vmm: Vmm) -> Request {
        let given = Vec::new();
        Request {
            start: Start { shape, vmm, given },
            descriptors: Vec::new(),
        }
    }

    /// Hands over a descriptor.
    pub(crate) fn give(&mut self, role: Role, descriptor: impl Into<OwnedFd>) {
        self.start.given.push(role);
        self.descriptors.push(descriptor.into());
    }

    /// Hands over the writing end of a pipe for what the VMM says, of which the last lines are kept.
    pub(crate) fn give_stderr(&mut self) -> io::Result<Tail> {
        self.give_pipe(Role::Stderr)
    }

    /// The same for what it says in this role.
    pub(crate) fn give_pipe(&mut self, role: Role) -> io::Result<Tail> {
        let (ours, theirs) = io::pipe()?;
        self.give(role, theirs);
        let ours = pipe::Receiver::from_owned_fd(ours.into())?;
        Ok(Tail::of(ours))
    }
}

/// A VMM of hostd's.
#[derive(Debug)]
pub(crate) struct Hosted {
    id: String,
    pid: u32,
    /// At its end when the VMM is gone.
    life: UnixStream,
    /// Away while hostd is being asked.
    client: Option<Client>,
    lease: Arc<Lease>,
    controls: Vec<Told>,
    /// How it ended, once hostd has removed it.
    status: Option<String>,
}

impl Hosted {
    /// Has the hostd that listens at `socket` start it; its cgroups come back as well.
    pub(crate) async fn start(
        socket: &Path,
        request: Request,
    ) -> Result<(Hosted, Cgroups), BootError> {
        let socket = socket.to_owned();
        let id = request.start.shape.id.clone();
        let asked = spawn_blocking(move || {
            let mut client = Client::connect(&socket)?;
            let descriptors: Vec<_> = request.descriptors.iter().map(AsFd::as_fd).collect();
            let (reply, came) = client.call(&Asked::Start(request.start), &descriptors)?;
            match (reply, came.into_iter().next()) {
                (Reply::Started { pid, cgroups }, Some(life)) => Ok((client, pid, cgroups, life)),
                _ => Err(CallError::Unexpected),
            }
        });
        let joined = asked.await.map_err(|error| BootError::Step {
            step: "ask firelane-hostd",
            source: io::Error::other(error),
        })?;
        let (client, pid, cgroups, life) = joined.map_err(BootError::Hostd)?;
        let life = watch(life).map_err(|source| BootError::Step {
            step: "watch the VMM",
            source,
        })?;
        let connection = client.connection().map_err(|source| BootError::Step {
            step: "hold the connection to firelane-hostd",
            source,
        })?;
        let lease = Lease {
            connection,
            given_up: AtomicBool::new(false),
        };
        let hosted = Hosted {
            id,
            pid,
            life,
            client: Some(client),
            lease: Arc::new(lease),
            controls: Vec::new(),
            status: None,
        };
        Ok((hosted, cgroups))
    }

    /// Its number on the host.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Whoever can end it from another thread.
    pub(crate) fn killer(&self) -> io::Result<Killer> {
        let vmm = ProcessId::of(self.pid)?;
        Ok(Killer::Hosted(vmm, Arc::clone(&self.lease)))
    }

    /// Whether it runs.
    pub(crate) fn lives(&self) -> bool {
        let heard = self.life.try_read(&mut [0]);
        heard.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Has hostd make sure that all its controls are in force.
    pub(crate) async fn confirm(&mut self) -> Result<(), CallError> {
        let id = self.id.clone();
        match self.ask(Asked::Confirm { id }).await? {
            Reply::State(state) => {
                self.controls = state.controls;
                Ok(())
            }
            _ => Err(CallError::Unexpected),
        }
    }

    /// Its process stands still from now on, or goes on.
    pub(crate) async fn set_still(&mut self, still: bool) -> Result<(), CallError> {
        let id = self.id.clone();
        let request = match still {
            true => Asked::Pause { id },
            false => Asked::Resume { id },
        };
        match self.ask(request).await? {
            Reply::State(_) => Ok(()),
            _ => Err(CallError::Unexpected),
        }
    }

    /// What it was confined by when that was confirmed: only root may look at another user's process.
    pub(crate) fn controls(&self) -> Controls {
        let controls = self.controls.iter().cloned().map(|told| Control {
            name: told.name.into(),
            state: match told.on {
                true => ControlState::On,
                false => ControlState::Off(told.reason),
            },
        });
        Controls(controls.collect())
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(&mut self) {
        // Nothing comes but the end. Whatever kind of end it is, hostd tells what became of the VMM.
        let _ = self.life.read(&mut [0]).await;
    }

    /// Ends it, unless it has ended; nothing that hostd had for it is left then. How it ended.
    pub(crate) async fn stop(&mut self) -> io::Result<String> {
        if let Some(status) = &self.status {
            return Ok(status.clone());
        }
        let id = self.id.clone();
        let status = match self.ask(Asked::Stop { id }).await {
            Ok(Reply::Stopped { status }) => {
                status.unwrap_or_else(|| "an end that firelane-hostd forgot".into())
            }
            Ok(_) => return Err(io::Error::other(CallError::Unexpected)),
            Err(_) if self.lease.is_given_up() => {
                // It is ended for that, and removed before we are told.
                self.ended().await;
                "its lease".into()
            }
            Err(error) => return Err(io::Error::other(error)),
        };
        self.status = Some(status.clone());
        // There is nothing that it is a lease for.
        self.client = None;
        Ok(status)
    }

    async fn ask(&mut self, request: Asked) -> Result<Reply, CallError> {
        let Some(mut client) = self.client.take() else {
            let gone = io::Error::other("the connection is gone");
            return Err(firelane_host_proto::frame::FrameError::Io(gone).into());
        };
        let asked = spawn_blocking(move || {
            let reply = client.call(&request, &[]);
            (client, reply)
        });
        let (client, reply) = asked
            .await
            .map_err(|error| CallError::Frame(io::Error::other(error).into()))?;
        self.client = Some(client);
        Ok(reply?.0)
    }
}

/// If the VMM, or its jail, has ended before it ran, what it wrote is the error.
pub(crate) async fn explain(error: BootError, stderr: &mut Tail) -> BootError {
    let BootError::Hostd(CallError::Refused(refusal)) = &error else {
        return error;
    };
    if refusal.code != Code::Died {
        return error;
    }
    let status = refusal.cause.clone();
    // hostd has collected it: nobody has the pipe any more.
    stderr.ended().await;
    BootError::Died(Death {
        status,
        stderr: stderr.text(),
        console: String::new(),
    })
}

/// Ends a VMM, from a thread that has nothing else of it.
#[derive(Clone, Debug)]
pub(crate) enum Killer {
    /// One of our user's, or of another's if we are root.
    Ours(ProcessId),
    /// One of hostd's.
    Hosted(ProcessId, Arc<Lease>),
}

impl Killer {
    /// Its process.
    pub(crate) fn vmm(&self) -> ProcessId {
        match self {
            Killer::Ours(vmm) | Killer::Hosted(vmm, _) => *vmm,
        }
    }

    /// Ends it; one that has ended is fine.
    pub(crate) fn kill(&self) -> io::Result<()> {
        match self {
            Killer::Ours(vmm) => vmm.kill(),
            Killer::Hosted(_, lease) => lease.give_up(),
        }
    }

    /// The same for one that seems to be about to end.
    pub(crate) fn kill_if_it_stays(&self) -> io::Result<()> {
        if let Killer::Hosted(vmm, _) = self {
            // How it ended is told over the lease.
            let deadline = Instant::now() + STAY;
            while vmm.lives() && Instant::now() < deadline {
                thread::sleep(POLL);
            }
            if !vmm.lives() {
                return Ok(());
            }
        }
        self.kill()
    }
}

/// The connection over which a VMM was started, as far as it can be ended: that takes no place with hostd, no
/// answer, and cannot mean another VMM.
#[derive(Debug)]
pub(crate) struct Lease {
    connection: StdUnixStream,
    given_up: AtomicBool,
}

impl Lease {
    fn give_up(&self) -> io::Result<()> {
        self.given_up.store(true, Ordering::Relaxed);
        match self.connection.shutdown(Shutdown::Both) {
            // hostd has ended it already.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            ended => ended,
        }
    }

    fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Relaxed)
    }
}

fn watch(life: OwnedFd) -> io::Result<UnixStream> {
    let life = StdUnixStream::from(life);
    life.set_nonblocking(true)?;
    UnixStream::from_std(life)
}
