//! The host's end of a session with the guest-runner (port 5001).
//!
//! One task reads frames and hands them to their stream; everybody one task writes. What
//! the guest sends is checked against the stream's window before it is kept.

mod archive;
mod detached;
mod exec;
mod files;
mod reader;
mod renewal;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use firelane_guest_proto::frame::{Channel, Decoder, Frame, FrameError, INITIAL_WINDOW, Kind};
use firelane_guest_proto::message::{BadMessage, Hello, Refused, Welcome, from_frame, to_frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::{Notify, OwnedRwLockWriteGuard, RwLock, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

pub use archive::{ArchiveLimits, EntryProblem, PackError, Packed, UnpackError, Unpacked};
pub use exec::{Event, Exec, Stdin};
pub use files::Watch;

/// Frames that may wait to be written.
const QUEUED_FRAMES: usize = 4;
/// Characters of a guest's own words that are passed on.
const MAX_SAID: usize = 300;
/// How long the guest may take to take a request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the guest may take to close its side.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the guest may take to answer the hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a session, or one of its streams, ended.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SessionError {
    /// The connection failed or was closed.
    #[error("the connection to the guest ended: {reason}")]
    Ended {
        /// Why.
        reason: String,
    },
    /// This side cut the connection: see [`Session::cut`].
    #[error("the connection to the guest was cut: {reason}")]
    Cut {
        /// Why.
        reason: String,
    },
    /// The guest sent something that is not the protocol.
    #[error("the guest broke the protocol: {what}")]
    Violation {
        /// What.
        what: String,
    },
    /// The guest does not answer.
    #[error("the guest did not answer within {0:?}")]
    Silent(Duration),
    /// The guest did not carry out a request.
    #[error("the guest refused: {}", .0.message)]
    Refused(Refused),
    /// The guest speaks a version of the protocol that does not have this request.
    #[error("the guest speaks version {0} of the protocol, which cannot do this")]
    TooOld(u16),
    /// The request is over a cap of the protocol.
    #[error("the request is too large for the protocol")]
    TooLarge,
    /// A file on the host could not be read or written.
    #[error("cannot use the file on the host: {reason}")]
    HostFile {
        /// Why.
        reason: String,
    },
}

impl From<io::Error> for SessionError {
    fn from(error: io::Error) -> SessionError {
        SessionError::Ended {
            reason: error.to_string(),
        }
    }
}

impl From<FrameError> for SessionError {
    fn from(error: FrameError) -> SessionError {
        SessionError::Violation {
            what: error.to_string(),
        }
    }
}

impl From<BadMessage> for SessionError {
    fn from(error: BadMessage) -> SessionError {
        SessionError::Violation {
            what: error.to_string(),
        }
    }
}

/// An open session.
pub struct Session {
    shared: Arc<Shared>,
    welcome: Welcome,
    reader: JoinHandle<()>,
    writer: JoinHandle<()>,
    keepalive: JoinHandle<()>,
}

impl Session {
    /// Greets the guest on a fresh connection to its session port.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn open(mut stream: UnixStream) -> Result<Session, SessionError> {
        let mut decoder = Decoder::new();
        let welcome = timeout(HELLO_TIMEOUT, greet(&mut stream, &mut decoder))
            .await
            .map_err(|_| SessionError::Silent(HELLO_TIMEOUT))??;
        let (read, write) = stream.into_split();
        let (pongs, asked) = mpsc::channel(1);
        let (frames, queued) = mpsc::channel(QUEUED_FRAMES);
        let writer = tokio::spawn(write_all(write, queued));
        let shared = Arc::new(Shared {
            frames,
            streams: Mutex::default(),
            last: AtomicU32::new(0),
            pause: Mutex::new(Pause {
                paused: false,
                since: Instant::now(),
            }),
            version: welcome.version,
            pongs,
            gate: Arc::default(),
        });
        // When the reader ends, so does the writer, and with it everybody who waits to write.
        let reader = reader::run(read, decoder, Arc::clone(&shared), writer.abort_handle());
        let reader = tokio::spawn(reader);
        let keepalive = tokio::spawn(reader::keep_alive(Arc::clone(&shared), asked));
        Ok(Session {
            shared,
            welcome,
            reader,
            writer,
            keepalive,
        })
    }

    /// Ends the session in order: the guest reads the end of it and closes its side.
    pub async fn close(mut self) {
        // Our side of the connection ends with the writer.
        self.writer.abort();
        // A guest that does not close its side is left all the same.
        let _ = timeout(CLOSE_TIMEOUT, &mut self.reader).await;
    }

    /// Keeps back what programs are sent, until what this gives is dropped. What was sent before is sent; what waits goes
    /// nowhere, if the session ends meanwhile. So what a host counts as sent is read by a guest that answers a later request.
    pub async fn hold(&self) -> Hold {
        let gate = Arc::clone(&self.shared.gate);
        Hold(gate.write_owned().await)
    }

    /// Cuts the connection: streams end at once with [`SessionError::Cut`], and the guest reads the end of the session.
    /// What was not written yet is lost.
    pub fn cut(&self, reason: &str) {
        let mut table = self.shared.lock();
        table.ended = Some(SessionError::Cut {
            reason: reason.into(),
        });
        table.open.clear();
        drop(table);
        self.abort();
    }

    fn abort(&self) {
        self.reader.abort();
        self.writer.abort();
        self.keepalive.abort();
    }

    /// Tells that the microVM is paused, or goes on: a paused one is silent and no fault of it.
    pub fn set_paused(&self, paused: bool) {
        *self.shared.lock_pause() = Pause {
            paused,
            since: Instant::now(),
        };
    }

    /// Whether its microVM is paused, as far as it was told.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.shared.lock_pause().paused
    }

    /// What the guest said of itself.
    #[must_use]
    pub fn welcome(&self) -> &Welcome {
        &self.welcome
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.abort();
    }
}

/// While it is there, programs are sent nothing: see [`Session::hold`].
#[must_use]
pub struct Hold(#[expect(dead_code, reason = "it is held")] OwnedRwLockWriteGuard<()>);

/// Writes whole frames, one after the other; a failure is seen by the reader as well.
async fn write_all(mut write: OwnedWriteHalf, mut queued: mpsc::Receiver<Vec<u8>>) {
    while let Some(bytes) = queued.recv().await {
        if write.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

async fn greet(stream: &mut UnixStream, decoder: &mut Decoder) -> Result<Welcome, SessionError> {
    let mut bytes = Vec::new();
    to_frame(0, Kind::Hello, &Hello::ours())?.encode(&mut bytes);
    stream.write_all(&bytes).await?;
    let mut buffer = vec![0; 4096];
    loop {
        if let Some(frame) = decoder.next_frame()? {
            return match frame.kind {
                Kind::Welcome => {
                    let welcome: Welcome = from_frame(&frame)?;
                    let ours = Hello {
                        min_version: welcome.version,
                        max_version: welcome.version,
                        ..Hello::ours()
                    };
                    match ours.agree() {
                        Some(_) => Ok(welcome),
                        None => Err(violation("it chose a version that was not offered")),
                    }
                }
                Kind::Goodbye => Err(reader::goodbye(&frame)),
                kind => Err(violation(&format!(
                    "a {kind:?} frame in place of its welcome"
                ))),
            };
        }
        match stream.read(&mut buffer).await? {
            0 => {
                return Err(SessionError::Ended {
                    reason: "closed before the welcome".into(),
                });
            }
            count => decoder.push(&buffer[..count]),
        }
    }
}

/// What the reader and the streams share.
struct Shared {
    frames: mpsc::Sender<Vec<u8>>,
    streams: Mutex<Table>,
    last: AtomicU32,
    pause: Mutex<Pause>,
    /// The session's version.
    version: u16,
    /// Answers that wait to be sent.
    pongs: mpsc::Sender<Vec<u8>>,
    /// Closed while programs are sent nothing.
    gate: Arc<RwLock<()>>,
}

/// Whether the microVM is paused, and since when it is or is not.
struct Pause {
    paused: bool,
    since: Instant,
}

#[derive(Default)]
struct Table {
    open: HashMap<u32, Slot>,
    ended: Option<SessionError>,
}

/// A stream as the reader sees it.
struct Slot {
    events: mpsc::UnboundedSender<Frame>,
    /// What the guest may still send, per channel. The events are bounded by this.
    stdout: u32,
    stderr: u32,
    file: u32,
    /// Frames other than data that the guest may still send.
    control: u32,
    /// What we may still send.
    credit: Arc<Credit>,
}

/// Frames other than data that a stream needs at most: started, file info, ends, outcome.
const MAX_CONTROL: u32 = 8;

/// What may be sent on a stream.
struct Credit {
    /// Bytes; none once the stream has ended.
    left: Mutex<Option<u32>>,
    more: Notify,
}

/// Our end of a stream.
struct Stream {
    id: u32,
    shared: Arc<Shared>,
    events: mpsc::UnboundedReceiver<Frame>,
    credit: Arc<Credit>,
}

impl Shared {
    fn lock_pause(&self) -> MutexGuard<'_, Pause> {
        self.pause.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nothing can be expected of the guest: it is paused, or was until a moment ago.
    fn may_be_silent(&self, moment: Duration) -> bool {
        let pause = self.lock_pause();
        pause.paused || pause.since.elapsed() < moment
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a whole frame to the writer: whoever is cancelled while waiting here has sent nothing,
    /// never a part of a frame.
    async fn send(&self, frame: &Frame) -> Result<(), SessionError> {
        let mut bytes = Vec::with_capacity(frame.payload.len() + 16);
        frame.encode(&mut bytes);
        self.frames.send(bytes).await.map_err(|_| self.why_ended())
    }

    /// The same for what a program is sent.
    async fn send_to_program(&self, frame: &Frame) -> Result<(), SessionError> {
        let _open = self.gate.read().await;
        self.send(frame).await
    }

    /// Why the session ended, as far as the reader has seen it.
    fn why_ended(&self) -> SessionError {
        let ended = self.lock().ended.clone();
        ended.unwrap_or_else(|| SessionError::Ended {
            reason: "the session was closed".into(),
        })
    }

    /// Opens a stream with its first frame, whose stream number is filled in.
    async fn open(self: &Arc<Self>, mut first: Frame) -> Result<Stream, SessionError> {
        if first.kind.since() > self.version {
            return Err(SessionError::TooOld(self.version));
        }
        let id = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let (sender, events) = mpsc::unbounded_channel();
        let credit = Arc::new(Credit {
            left: Mutex::new(Some(INITIAL_WINDOW)),
            more: Notify::new(),
        });
        {
            let mut table = self.lock();
            if let Some(error) = &table.ended {
                return Err(error.clone());
            }
            let slot = Slot {
                events: sender,
                stdout: INITIAL_WINDOW,
                stderr: INITIAL_WINDOW,
                file: INITIAL_WINDOW,
                control: MAX_CONTROL,
                credit: Arc::clone(&credit),
            };
            table.open.insert(id, slot);
        }
        let stream = Stream {
            id,
            shared: Arc::clone(self),
            events,
            credit,
        };
        first.stream = id;
        let sent = timeout(REQUEST_TIMEOUT, self.send(&first)).await;
        sent.map_err(|_| SessionError::Silent(REQUEST_TIMEOUT))??;
        Ok(stream)
    }
}

impl Stream {
    /// The guest's next frame on this stream.
    async fn next(&mut self) -> Result<Frame, SessionError> {
        match self.events.recv().await {
            Some(frame) if frame.kind == Kind::Refused => {
                let refused: Refused = from_frame(&frame)?;
                let message = clean(&refused.message);
                Err(SessionError::Refused(Refused { message, ..refused }))
            }
            Some(frame) => Ok(frame),
            None => Err(self.shared.why_ended()),
        }
    }

    /// Lets the guest send as many more bytes on a channel as were just taken from it.
    async fn grant(&self, channel: Channel, bytes: usize) -> Result<(), SessionError> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        if let Some(slot) = self.shared.lock().open.get_mut(&self.id) {
            *slot.window(channel) += bytes;
        }
        self.shared
            .send(&Frame::window(self.id, channel, bytes))
            .await
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.shared.lock().open.remove(&self.id);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.credit.close();
    }
}

impl Slot {
    /// Counts frames that no window bounds.
    fn control_allowed(&mut self, frame: &Frame) -> bool {
        if frame.is_windowed() {
            // One without bytes would cost memory and no window.
            return !frame.payload.is_empty();
        }
        self.control = self.control.saturating_sub(1);
        self.control > 0
    }

    fn window(&mut self, channel: Channel) -> &mut u32 {
        match channel {
            Channel::Stderr => &mut self.stderr,
            Channel::File => &mut self.file,
            _ => &mut self.stdout,
        }
    }
}

impl Credit {
    /// Waits until something may be sent; takes at most `wanted`. Nothing, once the stream has ended.
    async fn take(&self, wanted: usize) -> Option<usize> {
        loop {
            let more = self.more.notified();
            {
                let mut left = self.lock();
                let room = left.as_mut()?;
                let taken = (*room).min(u32::try_from(wanted).unwrap_or(u32::MAX));
                if taken > 0 {
                    *room -= taken;
                    return Some(taken as usize);
                }
            }
            more.await;
        }
    }

    fn give(&self, bytes: u32) {
        if let Some(left) = self.lock().as_mut() {
            *left = left.saturating_add(bytes).min(INITIAL_WINDOW);
        }
        self.wake();
    }

    /// Nothing more may be sent: the stream has ended.
    fn close(&self) {
        *self.lock() = None;
        self.wake();
    }

    fn wake(&self) {
        self.more.notify_waiters();
        self.more.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Option<u32>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a guest says, fit for one line of ours: short, and without anything that steers a terminal.
fn clean(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control())
        .take(MAX_SAID)
        .collect()
}

fn violation(what: &str) -> SessionError {
    SessionError::Violation { what: what.into() }
}
