//! The open streams of a session.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use firelane_guest_proto::frame::{Channel, Frame, INITIAL_WINDOW, Kind, MAX_STREAMS};
use firelane_guest_proto::message::{
    AttachSpec, ExecSpec, Forget, FreezeSpec, LaunchSpec, PutSpec, Refused, RefusedCode, RenewSpec,
    ThawSpec, WarmSpec,
};

use super::writer::Writer;
use super::{SessionError, attach, is_stdin, too_many};
use crate::Guest;
use crate::detached::Buffers;
use crate::exec::{self, Command, Remote, Sink, SourceFile, refused};
use crate::files::{AsUser, Put};
use crate::workers::Workers;

/// What a stream is doing.
pub(super) enum Stream {
    /// A program runs; `window` is what the host may still send to its stdin.
    Exec { remote: Remote, window: u32 },
    /// A file is being written.
    Put(Put),
    /// A file is being sent, or another request about files carried out.
    Files(Remote),
    /// A folder is being watched.
    Watch(Remote),
    /// The guest is being warmed or frozen, or a detached exec is being started.
    Busy,
}

/// The table of open streams.
#[derive(Clone)]
pub(crate) struct Streams {
    guest: Arc<Guest>,
    writer: Arc<Writer>,
    open: Arc<Mutex<HashMap<u32, Stream>>>,
}

impl Streams {
    pub(crate) fn new(guest: Arc<Guest>, writer: Arc<Writer>) -> Streams {
        Streams {
            guest,
            writer,
            open: Arc::default(),
        }
    }

    /// Opens a stream that runs a program.
    pub(super) fn exec(&self, id: u32, spec: ExecSpec) -> Result<(), SessionError> {
        let Some(()) = self.admit(id)? else {
            return Ok(());
        };
        let (remote, local) = exec::control()?;
        self.lock().insert(
            id,
            Stream::Exec {
                remote,
                window: INITIAL_WINDOW,
            },
        );
        let streams = self.clone();
        self.guest.workers.run(move || {
            let mut sink = StreamSink {
                id,
                streams: &streams,
            };
            let ended = exec::run(&streams.guest, &spec, SourceFile::Stays, &local, &mut sink);
            // Closed before it is told, so that the host may reuse the number at once.
            streams.lock().remove(&id);
            let told = match &ended {
                Ok(ended) => streams
                    .writer
                    .send_message(id, Kind::Exited, &ended.outcome),
                Err(refused) => streams.writer.send_message(id, Kind::Refused, refused),
            };
            // A host that is gone does not miss it.
            drop(told);
        })?;
        Ok(())
    }

    /// Opens a stream that warms the guest for a snapshot.
    pub(super) fn warm(&self, id: u32, spec: WarmSpec) -> Result<(), SessionError> {
        let Some(()) = self.admit(id)? else {
            return Ok(());
        };
        self.lock().insert(id, Stream::Busy);
        let streams = self.clone();
        self.guest.workers.run(move || {
            let warmed = crate::warm::warm(&streams.guest, &spec);
            streams.lock().remove(&id);
            // A host that is gone does not miss it.
            drop(streams.tell_done(id, warmed));
        })?;
        Ok(())
    }

    /// Opens a stream that renews the guest.
    pub(super) fn renew(&self, id: u32, spec: &RenewSpec) -> Result<(), SessionError> {
        let Some(()) = self.admit(id)? else {
            return Ok(());
        };
        // By the reader: nothing else is to be done before this, and it is quick.
        Ok(self.tell_done(id, self.guest.renewal.renew(spec, &self.guest.execs))?)
    }

    /// Opens a stream that lets a frozen guest go on.
    pub(super) fn thaw(&self, id: u32, spec: &ThawSpec) -> Result<(), SessionError> {
        let Some(()) = self.admit(id)? else {
            return Ok(());
        };
        Ok(self.tell_done(id, self.guest.renewal.thaw(spec, &self.guest.execs))?)
    }

    /// Opens a stream that freezes the guest for a snapshot.
    pub(super) fn freeze(&self, id: u32, spec: FreezeSpec) -> Result<(), SessionError> {
        let Some(()) = self.admit(id)? else {
            return Ok(());
        };
        self.lock().insert(id, Stream::Busy);
        let streams = self.clone();
        self.guest.workers.run(move || {
            let limit = Duration::from_millis(spec.timeout_ms.into());
            let guest = &streams.guest;
            let frozen = guest.renewal.freeze(&guest.execs, limit);
            streams.lock().remove(&id);
            // A host that is gone does not miss it.
            drop(streams.tell_done(id, frozen));
        })?;
        Ok(())
    }

    /// Opens a stream that starts a detached exec; it ends when the program runs.
    pub(super) fn launch(&self, id: u32, spec: LaunchSpec) -> Result<(), SessionError> {
        let Some(()) = self.admit(id)? else {
            return Ok(());
        };
        let (remote, local) = exec::control()?;
        let exec = match self.guest.detached.reserve(&spec.id, remote) {
            Ok(exec) => exec,
            Err(refused) => return Ok(self.tell_done(id, Err(refused))?),
        };
        self.lock().insert(id, Stream::Busy);
        let streams = self.clone();
        self.guest.workers.run(move || {
            let mut told = false;
            let mut tell = |launched: Result<(), Refused>| {
                if !std::mem::replace(&mut told, true) {
                    streams.lock().remove(&id);
                    // A host that is gone does not miss it.
                    drop(streams.tell_done(id, launched));
                }
            };
            let mut buffers = Buffers {
                exec: &exec,
                launched: &mut || tell(Ok(())),
            };
            let ended = exec::run(
                &streams.guest,
                &spec.exec,
                SourceFile::Goes,
                &local,
                &mut buffers,
            );
            if let Err(refused) = &ended {
                // If it never ran, this is the answer, and nothing of it is left.
                if streams.guest.detached.get(&spec.id).is_err() {
                    streams.guest.detached.release(&spec.id);
                }
                tell(Err(refused.clone()));
            }
            exec.end(ended.map(|ended| ended.outcome));
        })?;
        Ok(())
    }

    /// Opens a stream that follows a detached exec.
    pub(super) fn attach(&self, id: u32, spec: AttachSpec) -> Result<(), SessionError> {
        let Some(()) = self.admit(id)? else {
            return Ok(());
        };
        let fresh = self.guest.renewal.require_fresh();
        let exec = match fresh.and_then(|()| self.guest.detached.get(&spec.id)) {
            Ok(exec) => exec,
            Err(refused) => return Ok(self.tell_done(id, Err(refused))?),
        };
        let (remote, local) = exec::control()?;
        self.lock().insert(
            id,
            Stream::Exec {
                remote: remote.clone(),
                window: INITIAL_WINDOW,
            },
        );
        let streams = self.clone();
        self.guest.workers.run(move || {
            let followed = attach::follow(id, &spec, &exec, (remote, &local), &streams);
            streams.lock().remove(&id);
            let told = match followed {
                Ok(outcome) => streams.writer.send_message(id, Kind::Exited, &outcome),
                Err(refused) => streams.writer.send_message(id, Kind::Refused, &refused),
            };
            // A host that is gone does not miss it.
            drop(told);
        })?;
        Ok(())
    }

    /// Answers which detached execs there are.
    pub(super) fn list(&self, id: u32) -> Result<(), SessionError> {
        let Some(()) = self.admit(id)? else {
            return Ok(());
        };
        match self.guest.renewal.require_fresh() {
            Ok(()) => {
                let listing = self.guest.detached.list();
                Ok(self.writer.send_message(id, Kind::Listing, &listing)?)
            }
            Err(refused) => Ok(self.tell_done(id, Err(refused))?),
        }
    }

    /// Removes a detached exec that has ended.
    pub(super) fn forget(&self, id: u32, spec: &Forget) -> Result<(), SessionError> {
        let Some(()) = self.admit(id)? else {
            return Ok(());
        };
        let fresh = self.guest.renewal.require_fresh();
        let forgotten = fresh.and_then(|()| self.guest.detached.forget(&spec.id));
        Ok(self.tell_done(id, forgotten)?)
    }

    /// Lets the host send as many more bytes to a stream's stdin.
    pub(super) fn grant_stdin(&self, id: u32, bytes: u32) -> io::Result<()> {
        if let Some(Stream::Exec { window, .. }) = self.lock().get_mut(&id) {
            *window = window.saturating_add(bytes);
        }
        self.writer.send(&Frame::window(id, Channel::Stdin, bytes))
    }

    pub(super) fn workers(&self) -> &Workers {
        &self.guest.workers
    }

    pub(super) fn writer(&self) -> &Writer {
        &self.writer
    }

    /// How a stream without an outcome ended.
    pub(super) fn tell_done(&self, id: u32, done: Result<(), Refused>) -> io::Result<()> {
        match done {
            Ok(()) => self.writer.send(&Frame::new(id, Kind::Done, Vec::new())),
            Err(refused) => self.writer.send_message(id, Kind::Refused, &refused),
        }
    }

    /// The same, from the thread that reads: it sends what waits before it waits itself.
    pub(super) fn tell_done_soon(&self, id: u32, done: Result<(), Refused>) -> io::Result<()> {
        match done {
            Ok(()) => {
                let frame = Frame::new(id, Kind::Done, Vec::new());
                self.writer.send_soon(&frame)
            }
            Err(refused) => self.writer.send_message(id, Kind::Refused, &refused),
        }
    }

    /// Opens a stream that writes a file.
    pub(super) fn put(&self, id: u32, spec: &PutSpec) -> Result<(), SessionError> {
        let Some(()) = self.admit(id)? else {
            return Ok(());
        };
        let started = self.require_fresh().and_then(|()| {
            let _user = AsUser::begin()?;
            Put::start(spec)
        });
        match started {
            Ok(put) => {
                self.lock().insert(id, Stream::Put(put));
                Ok(())
            }
            Err(refused) => Ok(self.writer.send_message(id, Kind::Refused, &refused)?),
        }
    }

    /// Bytes for a stream. A stream that has just ended may still get some.
    pub(super) fn data(
        &self,
        id: u32,
        channel: Channel,
        bytes: Vec<u8>,
    ) -> Result<(), SessionError> {
        let mut open = self.lock();
        let refused = match open.get_mut(&id) {
            Some(Stream::Exec { remote, window }) if is_stdin(channel) => {
                let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                *window = window
                    .checked_sub(length)
                    .ok_or(SessionError::Window { stream: id })?;
                remote.send(Command::Stdin(bytes));
                return Ok(());
            }
            Some(Stream::Put(put)) if channel == Channel::File => match put.write(&bytes) {
                // Nobody waits for a window that lets nothing more through.
                Ok(()) if !put.wants_more() => return Ok(()),
                Ok(()) => {
                    drop(open);
                    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                    return Ok(self
                        .writer
                        .send(&Frame::window(id, Channel::File, length))?);
                }
                Err(refused) => refused,
            },
            _ => return Ok(()),
        };
        open.remove(&id);
        drop(open);
        Ok(self.writer.send_message(id, Kind::Refused, &refused)?)
    }

    /// No more bytes for a stream.
    pub(super) fn end(&self, id: u32, channel: Channel) -> Result<(), SessionError> {
        if is_stdin(channel) {
            self.command(id, Command::StdinEnd);
            return Ok(());
        }
        let mut open = self.lock();
        let finished = match open.remove(&id) {
            Some(Stream::Put(put)) => AsUser::begin().and_then(|_user| put.finish()),
            Some(other) => {
                // The host wants no more of this.
                if let Stream::Files(remote) | Stream::Watch(remote) = &other {
                    remote.send(Command::Abort);
                }
                open.insert(id, other);
                return Ok(());
            }
            None => return Ok(()),
        };
        drop(open);
        Ok(self.tell_done_soon(id, finished)?)
    }

    /// Passes a command to the stream's thread.
    pub(super) fn command(&self, id: u32, command: Command) {
        match self.lock().get(&id) {
            Some(Stream::Exec { remote, .. } | Stream::Files(remote) | Stream::Watch(remote)) => {
                remote.send(command);
            }
            Some(Stream::Put(_) | Stream::Busy) | None => {}
        }
    }

    /// Ends every stream: the connection is gone.
    pub(super) fn abort_all(&self) {
        for (_, stream) in self.lock().drain() {
            if let Stream::Exec { remote, .. } | Stream::Files(remote) | Stream::Watch(remote) =
                stream
            {
                remote.send(Command::Abort);
            }
        }
    }

    /// Whether the stream may be opened; a session that is full refuses it, and goes on.
    pub(super) fn admit(&self, id: u32) -> Result<Option<()>, SessionError> {
        let (full, taken) = {
            let open = self.lock();
            (open.len() >= MAX_STREAMS, open.contains_key(&id))
        };
        if id == 0 || taken {
            return Err(SessionError::StreamTaken { stream: id });
        }
        if full {
            self.writer.send_message(id, Kind::Refused, &too_many())?;
            return Ok(None);
        }
        Ok(Some(()))
    }

    /// Whether requests are carried out at all.
    pub(super) fn require_fresh(&self) -> Result<(), Refused> {
        self.guest.renewal.require_fresh()
    }

    pub(super) fn insert(&self, id: u32, stream: Stream) {
        self.lock().insert(id, stream);
    }

    pub(super) fn remove(&self, id: u32) {
        self.lock().remove(&id);
    }

    /// How many folders are being watched.
    pub(super) fn watches(&self) -> usize {
        let open = self.lock();
        let watches = open.values().filter(|s| matches!(s, Stream::Watch(_)));
        watches.count()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u32, Stream>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends what a program does as frames of its stream.
struct StreamSink<'a> {
    id: u32,
    streams: &'a Streams,
}

impl Sink for StreamSink<'_> {
    fn started(&mut self, _: u32) -> io::Result<()> {
        self.streams
            .writer
            .send(&Frame::new(self.id, Kind::Started, Vec::new()))
    }

    fn output(&mut self, channel: Channel, bytes: &[u8]) -> io::Result<()> {
        self.streams
            .writer
            .send(&Frame::data(self.id, channel, bytes))
    }

    fn stdin_taken(&mut self, bytes: usize) -> io::Result<()> {
        let bytes = u32::try_from(bytes).map_err(io::Error::other)?;
        self.streams.grant_stdin(self.id, bytes)
    }

    fn initial_window(&self) -> u64 {
        INITIAL_WINDOW.into()
    }
}

/// The refusal of a file that the guest-runner could not read to its end.
pub(super) fn unreadable(error: &io::Error) -> Refused {
    refused(
        RefusedCode::Internal,
        format!("cannot read the file: {error}"),
    )
}
