//! QEMU with a clone's arguments and a snapshot's files, and nothing of ours around it: what a restore
//! cannot be faster than. There is no jail, no run directory, no cgroup, no link with several
//! connections, no session with windows and keep-alive: one connection, and the fewest frames after
//! which a restored guest runs a program. Only for benchmarks, with programs of our own.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use command_fds::{CommandFdExt, FdMapping};
use firelane_guest_proto::SESSION_PORT;
use firelane_guest_proto::frame::{Channel, Decoder, Frame, FrameError, Kind};
use firelane_guest_proto::link::{
    Kind as LinkKind, LinkDecoder, LinkError, LinkFrame, MAX_PAYLOAD_BYTES, ReadyFinder,
};
use firelane_guest_proto::message::{
    BadMessage, ExecSpec, Hello, Outcome, RenewSpec, from_frame, to_frame,
};
use firelane_launch::machine::Network;
use firelane_launch::qemu::{CONSOLE_FD, LINK_FD, Origin, QMP_FD, arguments, escape};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::Qemu;
use super::migration::{self, MigrationError};
use super::qmp::{Qmp, QmpError};
use crate::driver::{Machine, SnapshotFiles};

/// How long all of it may take.
const LIMIT: Duration = Duration::from_secs(120);
/// The only connection.
const CONNECTION: u32 = 1;

/// Why there is no measurement. Nothing of the VMM is left.
#[derive(Debug, thiserror::Error)]
pub enum BareError {
    /// It was not started, or a socket to it failed.
    #[error("cannot talk to a bare QEMU")]
    Io(#[from] io::Error),
    /// Its monitor refused.
    #[error("a bare QEMU refused")]
    Monitor(#[from] QmpError),
    /// It did not load the snapshot.
    #[error("a bare QEMU did not load the snapshot: {0}")]
    Load(String),
    /// The guest sent what is no frame.
    #[error("the guest broke the protocol")]
    Link(#[from] LinkError),
    /// The same, in the connection.
    #[error("the guest broke the protocol")]
    Frame(#[from] FrameError),
    /// A message is too large, or cannot be read.
    #[error("a message of the protocol is wrong")]
    Message(#[from] BadMessage),
    /// The guest did something else than it was asked for.
    #[error("the guest sent {0} in place of an outcome")]
    Unexpected(String),
    /// It took too long.
    #[error("it took more than {LIMIT:?}")]
    TimedOut,
}

impl From<MigrationError> for BareError {
    fn from(error: MigrationError) -> BareError {
        BareError::Load(error.to_string())
    }
}

impl Qemu {
    /// Restores the snapshot in a QEMU of its own, has the guest renew itself and run a program, and
    /// kills it. How long that took, from the start to the outcome, and the outcome.
    ///
    /// # Errors
    /// [`BareError`].
    pub async fn bare(
        &self,
        machine: &Machine,
        files: &SnapshotFiles,
        renew: &RenewSpec,
        exec: &ExecSpec,
    ) -> Result<(Duration, Outcome), BareError> {
        let start = Instant::now();
        let mut vmm = None;
        let all = self.bare_outcome(machine, files, renew, exec, &mut vmm);
        let outcome = timeout(LIMIT, all).await;
        let took = start.elapsed();
        if let Some(mut child) = vmm {
            child.kill().await?;
        }
        Ok((took, outcome.map_err(|_| BareError::TimedOut)??))
    }

    async fn bare_outcome(
        &self,
        machine: &Machine,
        files: &SnapshotFiles,
        renew: &RenewSpec,
        exec: &ExecSpec,
        vmm: &mut Option<Child>,
    ) -> Result<Outcome, BareError> {
        let (qmp, qmp_theirs) = StdUnixStream::pair()?;
        let (port, port_theirs) = StdUnixStream::pair()?;
        // Small enough to stay in the socket: nobody reads what the guest says there.
        let (_console, console_theirs) = StdUnixStream::pair()?;
        let (shape, files_seen) = (machine.shape(), machine.files());
        let (acceleration, tsc_khz) = (self.acceleration, self.tsc_khz);
        let arguments = arguments(
            &shape,
            &files_seen,
            Origin::Clone,
            acceleration,
            tsc_khz,
            machine.network.as_ref().map(|_| Network::Nothing),
        );
        let theirs = [
            (qmp_theirs.into(), QMP_FD),
            (port_theirs.into(), LINK_FD),
            (console_theirs.into(), CONSOLE_FD),
        ];
        *vmm = Some(spawn(
            &self.program,
            with_memory(arguments, &files.memory),
            theirs,
        )?);
        let mut monitor = Qmp::open(tokio_stream(qmp)?).await?;
        migration::load(&mut monitor, &File::open(&files.state)?).await?;
        let mut guest = Guest::new(tokio_stream(port)?);
        // Drawn once for all: a benchmark's guests do not lie.
        let nonce = 0x6265_6e63_6865_6421;
        guest
            .send(&[LinkFrame::nonce(LinkKind::Attach, nonce)])
            .await?;
        monitor.command("cont").await?;
        guest.attach(nonce).await?;
        let hello = to_frame(0, Kind::Hello, &Hello::ours())?;
        guest.say(&[hello]).await?;
        guest.hear(Kind::Welcome).await?;
        guest.say(&[to_frame(1, Kind::Renew, renew)?]).await?;
        guest.hear(Kind::Done).await?;
        let exec = to_frame(2, Kind::Exec, exec)?;
        guest.say(&[exec, Frame::end(2, Channel::Stdin)]).await?;
        let exited = guest.hear(Kind::Exited).await?;
        Ok(from_frame(&exited)?)
    }
}

/// The arguments with the memory by its own path: there is no jail that would hand it in.
fn with_memory(arguments: Vec<String>, memory: &Path) -> Vec<String> {
    let own = format!("mem-path={},", escape(memory));
    let own = |word: String| word.replace("mem-path=/memory,", &own);
    arguments.into_iter().map(own).collect()
}

fn spawn(program: &Path, arguments: Vec<String>, theirs: [(OwnedFd, i32); 3]) -> io::Result<Child> {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true);
    let mappings = theirs.into_iter().map(|(parent_fd, child_fd)| FdMapping {
        parent_fd,
        child_fd,
    });
    let mapped = command.fd_mappings(mappings.collect());
    mapped.map_err(io::Error::other)?;
    command.spawn()
}

fn tokio_stream(stream: StdUnixStream) -> io::Result<UnixStream> {
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

/// The guest at the other end of its port.
struct Guest {
    port: UnixStream,
    link: LinkDecoder,
    frames: Decoder,
    buffer: Vec<u8>,
}

impl Guest {
    fn new(port: UnixStream) -> Guest {
        Guest {
            port,
            link: LinkDecoder::new(),
            frames: Decoder::new(),
            buffer: vec![0; MAX_PAYLOAD_BYTES],
        }
    }

    async fn send(&mut self, frames: &[LinkFrame]) -> Result<(), BareError> {
        let mut bytes = Vec::new();
        for frame in frames {
            frame.encode(&mut bytes);
        }
        Ok(self.port.write_all(&bytes).await?)
    }

    async fn read(&mut self) -> Result<usize, BareError> {
        match self.port.read(&mut self.buffer).await? {
            0 => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            count => Ok(count),
        }
    }

    /// Waits until the guest has attached, and opens the connection.
    async fn attach(&mut self, nonce: u64) -> Result<(), BareError> {
        let mut finder = ReadyFinder::new(nonce);
        loop {
            let count = self.read().await?;
            if let Some(rest) = finder.push(&self.buffer[..count]) {
                self.link.push(&rest);
                break;
            }
        }
        let open = LinkFrame::number(CONNECTION, LinkKind::Open, SESSION_PORT);
        self.send(&[open]).await
    }

    /// Sends frames of the session; all of them fit the guest's window.
    async fn say(&mut self, frames: &[Frame]) -> Result<(), BareError> {
        let mut bytes = Vec::new();
        for frame in frames {
            frame.encode(&mut bytes);
        }
        let parts = bytes.chunks(MAX_PAYLOAD_BYTES);
        let parts: Vec<_> = parts
            .map(|part| LinkFrame::data(CONNECTION, part))
            .collect();
        self.send(&parts).await
    }

    /// Waits for a frame of this kind, past those that tell of a program on its way there.
    async fn hear(&mut self, wanted: Kind) -> Result<Frame, BareError> {
        loop {
            while let Some(frame) = self.link.next_frame()? {
                match frame.kind {
                    LinkKind::Data => self.frames.push(&frame.payload),
                    LinkKind::Opened | LinkKind::Credit => {}
                    other => return Err(BareError::Unexpected(format!("{other:?}"))),
                }
            }
            while let Some(frame) = self.frames.next_frame()? {
                match frame.kind {
                    kind if kind == wanted => return Ok(frame),
                    Kind::Started | Kind::Data | Kind::End | Kind::Window => {}
                    other => return Err(BareError::Unexpected(format!("{other:?}"))),
                }
            }
            let count = self.read().await?;
            self.link.push(&self.buffer[..count]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_path_of_the_memory_differs_from_a_clones_arguments() {
        let words = [
            "-object",
            "memory-backend-file,id=ram,size=1M,mem-path=/memory,share=off",
        ];
        let own = with_memory(words.map(String::from).into(), Path::new("/a,b/memory"));
        let expected = "memory-backend-file,id=ram,size=1M,mem-path=/a,,b/memory,share=off";
        assert_eq!(own, ["-object", expected]);
    }
}
