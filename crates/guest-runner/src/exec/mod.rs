//! One program: started as an unprivileged user, its bytes pumped, its whole tree ended.
//!
//! ```text
//!   request ── interpreter, working directory, source file ──> Plan
//!   Plan ── spawn ──> running ── exits, time limit, abort ──> tree killed ── drained ──> Outcome
//! ```
//!
//! The tree is a cgroup, so nothing that a program forks, detaches or renames escapes its end.

mod interpreter;
mod plan;
mod pump;
mod spawn;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use firelane_guest_proto::frame::Channel;
use firelane_guest_proto::message::{ExecSpec, PtySize, Refused, RefusedCode};

use crate::Guest;
use crate::wake::Wake;

pub(crate) use interpreter::find as interpreter;
pub(crate) use plan::{SourceFile, base_environment, first_source};
pub(crate) use pump::Ended;
pub(crate) use spawn::{Ours, Running, Theirs, confine, pipes, prepare_group, usual_bounds};

/// User and group that programs run as; `user` in the template's `/etc/passwd`.
pub(crate) const USER_ID: u32 = 1000;

/// What the owner of an exec can ask of it while it runs.
pub(crate) enum Command {
    /// Bytes for its standard input.
    Stdin(Vec<u8>),
    /// No more of those.
    StdinEnd,
    /// It may send this many bytes more.
    Grant(Channel, u32),
    /// Send this signal; to the whole tree if it is SIGKILL, else to the main process group.
    Signal(i32),
    /// The terminal's new size.
    Resize(PtySize),
    /// Nobody wants the outcome any more: end the tree.
    Abort,
    /// For who follows a detached exec: there may be something to do.
    Look,
}

/// The owner's end of a running exec.
#[derive(Clone)]
pub(crate) struct Remote {
    commands: Sender<Command>,
    wake: Arc<Wake>,
}

impl Remote {
    /// Passes the command on; an exec that has ended does not need it.
    pub(crate) fn send(&self, command: Command) {
        if self.commands.send(command).is_ok() {
            self.wake.ring();
        }
    }
}

/// The exec's end.
pub(crate) struct Local {
    commands: Receiver<Command>,
    wake: Arc<Wake>,
}

impl Local {
    /// Waits for the next command.
    pub(crate) fn next_command(&self) -> io::Result<Command> {
        self.commands
            .recv()
            .map_err(|_| io::Error::other("the session is gone"))
    }

    /// Becomes readable when a command comes, until [`Local::clear_wake`].
    pub(crate) fn wake(&self) -> &Wake {
        &self.wake
    }

    /// Before commands are taken: those that come later make it readable again.
    pub(crate) fn clear_wake(&self) {
        self.wake.clear();
    }

    /// The next command, if one has come.
    pub(crate) fn pending_command(&self) -> Option<Command> {
        self.commands.try_recv().ok()
    }
}

/// A pair of ends.
pub(crate) fn control() -> io::Result<(Remote, Local)> {
    let (sender, receiver) = channel();
    let wake = Arc::new(Wake::new()?);
    let remote = Remote {
        commands: sender,
        wake: Arc::clone(&wake),
    };
    Ok((
        remote,
        Local {
            commands: receiver,
            wake,
        },
    ))
}

/// Where an exec's events go.
pub(crate) trait Sink {
    /// The program runs.
    fn started(&mut self, pid: u32) -> io::Result<()>;
    /// Bytes of stdout or stderr; never more than was granted.
    fn output(&mut self, channel: Channel, bytes: &[u8]) -> io::Result<()>;
    /// Bytes of stdin went to the program: the sender may send as many more.
    fn stdin_taken(&mut self, bytes: usize) -> io::Result<()>;
    /// Bytes of output that may be sent before the first [`Command::Grant`].
    fn initial_window(&self) -> u64;
}

/// Runs a program to its end.
pub(crate) fn run(
    guest: &Arc<Guest>,
    spec: &ExecSpec,
    source_file: SourceFile,
    local: &Local,
    sink: &mut dyn Sink,
) -> Result<Ended, Refused> {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let starting = guest.renewal.begin()?;
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let plan = plan::Plan::make(spec, number, source_file)?;
    let started = Running::start(guest, &plan, number, &local.wake);
    // From here on it is frozen with its cgroup.
    drop(starting);
    let ended = started.and_then(|running| {
        pump::pump(running, &plan, local, sink).map_err(|error| {
            refused(
                RefusedCode::Internal,
                format!("cannot follow the program: {error}"),
            )
        })
    });
    plan.clear();
    ended
}

/// Makes `path` the property of the programs' user.
pub(crate) fn give_to_user(path: &Path) -> io::Result<()> {
    std::os::unix::fs::chown(path, Some(USER_ID), Some(USER_ID))
}

/// A refusal.
pub(crate) fn refused(code: RefusedCode, message: String) -> Refused {
    Refused { code, message }
}
