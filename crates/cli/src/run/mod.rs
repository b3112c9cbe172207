//! One run: boot, send, follow, fetch, destroy.

mod aside;
mod input;
mod output;
pub(crate) mod remote;
mod report;

use std::path::PathBuf;
use std::time::Duration;

use firelane_agent::follow::{Bounds, follow};
use firelane_agent::network;
use firelane_guest_proto::message::{ExecSpec, GetSpec, MAX_FILE_BYTES, Outcome, PutSpec};
use firelane_vmm::driver::MicroVm;
use firelane_vmm::session::{Session, Stdin};
use firelane_vmm::timeline::{Phase, Timeline};
use firelane_wire::network::NetworkSeen;
use firelane_wire::run::{Ending, Ran};
use tokio::io::AsyncReadExt;

use crate::failure::Failure;
use crate::host::{Host, Started, sweep};
use crate::signals::Signals;

use aside::Aside;
pub(crate) use input::{Input, StdinSource};
pub(crate) use output::Output;
pub(crate) use report::{print_timings, to_json};

/// A program with all that it comes with, checked and read, wherever it runs.
pub(crate) struct Program {
    pub(crate) input: Input,
    pub(crate) stdin: StdinSource,
    pub(crate) files_in: Vec<FileIn>,
    pub(crate) files_out: Vec<FileOut>,
}

/// A program that has ended, wherever it ran.
pub(crate) struct Done {
    pub(crate) id: String,
    pub(crate) ending: Ending,
    pub(crate) ran: Ran,
    /// Files that could not be fetched.
    pub(crate) missing: Vec<Failure>,
}

/// What to run in a microVM of our own.
pub(crate) struct Request {
    pub(crate) spec: ExecSpec,
    pub(crate) timeout: Duration,
    pub(crate) stdin: StdinSource,
    pub(crate) files_in: Vec<FileIn>,
    pub(crate) files_out: Vec<FileOut>,
}

/// A file of the host's, opened.
pub(crate) struct FileIn {
    pub(crate) file: std::fs::File,
    pub(crate) spec: PutSpec,
}

/// A file of the guest's, and where it shall be.
pub(crate) struct FileOut {
    pub(crate) guest: String,
    pub(crate) host: PathBuf,
}

/// How a run ended.
pub(crate) struct Finished {
    pub(crate) outcome: Outcome,
    /// Files that could not be fetched.
    pub(crate) missing: Vec<Failure>,
    /// What happened in its network, if it had one.
    pub(crate) network: Option<NetworkSeen>,
}

/// Runs until the end, Ctrl-C or SIGTERM; nothing of the microVM is left in any case.
pub(crate) async fn execute(
    host: &Host,
    id: &str,
    request: Request,
    output: &mut Output,
    timeline: &mut Timeline,
) -> Result<Finished, Failure> {
    interruptible(run(host, id, request, output, timeline)).await
}

/// Drops `work` when a signal asks us to end, and removes what it had.
pub(crate) async fn interruptible<T>(
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let mut signals = Signals::listen()?;
    let number = tokio::select! {
        done = work => return done,
        number = signals.next() => number,
    };
    // The dropped work has killed its VMM and let go of its run directory.
    sweep();
    Err(Failure::interrupted(number))
}

async fn run(
    host: &Host,
    id: &str,
    request: Request,
    output: &mut Output,
    timeline: &mut Timeline,
) -> Result<Finished, Failure> {
    let started = host.start(id, timeline).await?;
    run_in(started, request, output, timeline).await
}

/// Runs in a guest that was started for it, and destroys it.
pub(crate) async fn run_in(
    started: Started,
    request: Request,
    output: &mut Output,
    timeline: &mut Timeline,
) -> Result<Finished, Failure> {
    let Started {
        mut vm,
        session,
        network,
    } = started;
    let finished = inside(&mut *vm, &session, request, output, timeline).await;
    drop(session);
    if let Err(error) = vm.destroy().await {
        // The run is over and its outcome stands; the next sweep takes what is left.
        tracing::warn!(%error, "not everything of the microVM could be removed");
    }
    timeline.mark(Phase::Destroyed);
    let seen = network::close(network).await;
    Ok(Finished {
        network: seen,
        ..finished?
    })
}

/// Runs in a guest and leaves it as it is then.
pub(crate) async fn inside(
    vm: &mut dyn MicroVm,
    session: &Session,
    request: Request,
    output: &mut Output,
    timeline: &mut Timeline,
) -> Result<Finished, Failure> {
    for file in request.files_in {
        session
            .put(&file.spec, tokio::fs::File::from_std(file.file))
            .await?;
    }
    let exec = session.exec(&request.spec).await?;
    timeline.mark(Phase::Sent);
    let mut feeding = tokio::spawn(feed(exec.stdin(), request.stdin));
    let bounds = Bounds {
        time: Some(request.timeout),
        output: request.spec.limits.output_bytes,
    };
    let followed = follow(vm, exec, bounds, output).await;
    feeding.abort();
    if let Ok(Err(error)) = (&mut feeding).await {
        let context = "cannot read the program's standard input";
        return Err(Failure::platform(
            anyhow::Error::from(error).context(context),
        ));
    }
    let outcome = followed?;
    timeline.mark(Phase::Result);
    let mut missing = Vec::new();
    for file in request.files_out {
        if let Err(failure) = fetch(session, file).await {
            missing.push(failure);
        }
    }
    Ok(Finished {
        outcome,
        missing,
        network: None,
    })
}

/// Sends the program its input, then its end; fails if the input cannot be read. When the program
/// ends first, what is left is not needed.
async fn feed(stdin: Stdin, source: StdinSource) -> std::io::Result<()> {
    let read = match source {
        StdinSource::Empty => Ok(()),
        StdinSource::Inherited => copy(tokio::io::stdin(), &stdin).await,
        StdinSource::File(file) => copy(tokio::fs::File::from_std(file), &stdin).await,
    };
    if let Err(error) = stdin.end().await {
        tracing::debug!(%error, "the session ended before the program's input");
    }
    read
}

async fn copy(mut from: impl tokio::io::AsyncRead + Unpin, to: &Stdin) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        match from.read(&mut buffer).await? {
            0 => return Ok(()),
            count => {
                if let Err(error) = to.write(&buffer[..count]).await {
                    tracing::debug!(%error, "the session ended before the program's input");
                    return Ok(());
                }
            }
        }
    }
}

/// Fetches a file: written aside, then moved into place. Whatever ends this early, the half of a
/// file does not stay.
async fn fetch(session: &Session, file: FileOut) -> Result<(), Failure> {
    let aside = Aside::of(&file.host)?;
    let target = tokio::fs::File::from_std(aside.file()?);
    let spec = GetSpec {
        path: file.guest.clone(),
        max_bytes: MAX_FILE_BYTES,
    };
    session.get(&spec, target).await.map_err(|error| {
        let context = format!("cannot fetch {}", file.guest);
        Failure::platform(anyhow::Error::from(error).context(context))
    })?;
    aside.into_place()
}
