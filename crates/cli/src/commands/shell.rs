//! `firelane shell`.

use std::io::IsTerminal;

use firelane_agent::network;
use firelane_agent::workshop::new_id;
use firelane_guest_proto::message::{ExecSpec, Limits, Program, PtySize};
use firelane_vmm::session::{Event, Stdin};
use firelane_vmm::timeline::Timeline;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::signal::unix::{SignalKind, signal};

use crate::args::ShellArgs;
use crate::failure::Failure;
use crate::host::{Host, Started};

pub(super) async fn shell(args: ShellArgs) -> Result<u8, Failure> {
    if !std::io::stdin().is_terminal() || !std::io::stdout().is_terminal() {
        return Err(Failure::usage(
            "a shell needs a terminal; to run a script, use firelane run",
        ));
    }
    let host = Host::prepare(&args.machine).await?;
    let id = new_id();
    let Started {
        vm,
        session,
        network,
    } = host.start(&id, &mut Timeline::start()).await?;
    let env = host.template.manifest().env.clone().into_iter().collect();
    let ended = talk(session, id, env, host.program_memory_bytes()).await;
    vm.destroy().await.map_err(Failure::platform)?;
    network::close(network).await;
    ended
}

async fn talk(
    session: firelane_vmm::session::Session,
    trace_id: String,
    env: Vec<(String, String)>,
    memory_bytes: u64,
) -> Result<u8, Failure> {
    let spec = ExecSpec {
        trace_id,
        program: Program::Command {
            argv: vec!["bash".into()],
        },
        env,
        cwd: Some("/home/user".into()),
        limits: Limits {
            memory_bytes,
            ..Limits::default()
        },
        pty: Some(size()?),
    };
    let mut exec = session.exec(&spec).await?;
    let raw = Raw::enter()?;
    let typing = tokio::spawn(type_in(exec.stdin()));
    let resizing = tokio::spawn(follow_size(exec.stdin()));
    let mut terminal = tokio::io::stdout();
    let outcome = loop {
        match exec.next().await? {
            Event::Stdout(bytes) | Event::Stderr(bytes) => {
                terminal
                    .write_all(&bytes)
                    .await
                    .map_err(Failure::platform)?;
                terminal.flush().await.map_err(Failure::platform)?;
            }
            Event::Ended(outcome) => break outcome,
            Event::Started => {}
        }
    };
    typing.abort();
    resizing.abort();
    drop(raw);
    Ok(u8::try_from(outcome.exit_code() & 0xff).unwrap_or(u8::MAX))
}

/// Passes on what is typed. Ends with the session.
async fn type_in(stdin: Stdin) {
    let mut keyboard = tokio::io::stdin();
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = keyboard.read(&mut buffer).await {
        if stdin.write(&buffer[..count]).await.is_err() {
            return;
        }
    }
    // A session that is gone needs no end.
    let _ = stdin.end().await;
}

/// Tells the guest when the terminal's size changes.
async fn follow_size(stdin: Stdin) {
    let Ok(mut changes) = signal(SignalKind::window_change()) else {
        return;
    };
    while changes.recv().await.is_some() {
        if let Ok(size) = size()
            && stdin.resize(size).await.is_err()
        {
            return;
        }
    }
}

fn size() -> Result<PtySize, Failure> {
    let size = tcgetwinsize(rustix::stdio::stdout())
        .map_err(|errno| Failure::platform(std::io::Error::from(errno)))?;
    Ok(PtySize {
        rows: size.ws_row,
        cols: size.ws_col,
    })
}

/// The terminal in raw mode; as it was when dropped.
struct Raw(Termios);

impl Raw {
    fn enter() -> Result<Raw, Failure> {
        let failed = |errno| Failure::platform(std::io::Error::from(errno));
        let before = tcgetattr(rustix::stdio::stdin()).map_err(failed)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &raw).map_err(failed)?;
        Ok(Raw(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that is gone needs no mode.
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &self.0);
    }
}
