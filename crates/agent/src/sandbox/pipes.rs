//! Files that do not fit a message: they go through a pipe, part by part.
//!
//! ```text
//!   Put, Unpack   write* ─▶ bytes ─▶ task ─▶ session     finish: what came of it
//!   Get, Pack     read*  ◀─ bytes ◀─ task ◀─ session     the last read: end, or why not
//!   Watch         read*  ◀───────────────── session
//! ```
//!
//! The task is never cut off: when a pipe is closed, its end of the bytes is, and the session ends its
//! stream in order.

use std::collections::HashMap;
use std::sync::{Arc, Mutex as PlainMutex, MutexGuard, PoisonError};
use std::time::Duration;

use firelane_guest_proto::files::{Change, GetRangeSpec, WatchSpec};
use firelane_guest_proto::message::PutSpec;
use firelane_vmm::session::{ArchiveLimits, PackError, Session, SessionError, UnpackError, Watch};
use firelane_wire::bus::{
    ClosePipe, FinishPipe, MAX_PART_BYTES, OpenPipe, PIPE_IDLE_S, PipeDone, PipeOpened, PipePart,
    Piped, ReadPipe, WritePipe,
};
use firelane_wire::content::text;
use firelane_wire::file::{FileEvent, FileEventKind};
use firelane_wire::problem::{Code, Problem, causes};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};
use uuid::Uuid;

use super::files::{entry, last};
use super::here::Use;
use crate::Agent;
use crate::problem::{from_session, internal};

/// Most pipes of one host.
const MAX_PIPES: usize = 256;
/// Longest that somebody who reads is kept waiting.
const MAX_WAIT: Duration = Duration::from_secs(25);
/// How long a pipe that nobody uses stays open.
const IDLE: Duration = Duration::from_secs(PIPE_IDLE_S);

/// What came of a pipe's task.
type Done = Result<PipeDone, Problem>;

/// The open pipes.
#[derive(Default)]
pub(super) struct Pipes {
    all: PlainMutex<HashMap<Uuid, Arc<Pipe>>>,
}

struct Pipe {
    used: PlainMutex<Instant>,
    end: Mutex<Option<End>>,
}

/// Our end of a pipe.
enum End {
    In {
        bytes: DuplexStream,
        task: JoinHandle<Done>,
        /// Bytes that may still come.
        left: u64,
    },
    Out {
        bytes: DuplexStream,
        task: JoinHandle<Done>,
    },
    Watch(Watch),
}

impl Pipes {
    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Arc<Pipe>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, id: Uuid) -> Result<Arc<Pipe>, Problem> {
        let pipe = self.lock().get(&id).map(Arc::clone);
        let pipe = pipe.ok_or_else(|| Problem::not_found("pipe", id))?;
        pipe.touch();
        Ok(pipe)
    }

    fn insert(&self, end: End) -> Result<Uuid, Problem> {
        let mut all = self.lock();
        if all.len() >= MAX_PIPES {
            let cause = format!("{MAX_PIPES} files are under way on this host, which is the most");
            return Err(Problem::new(Code::Unavailable, cause).retry_after(Duration::from_secs(1)));
        }
        // Who knows its name may use it: random, not counted.
        let id = Uuid::new_v4();
        let pipe = Pipe {
            used: PlainMutex::new(Instant::now()),
            end: Mutex::new(Some(end)),
        };
        all.insert(id, Arc::new(pipe));
        Ok(id)
    }

    fn close(&self, id: Uuid) {
        self.lock().remove(&id);
    }
}

impl Pipe {
    fn touch(&self) {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn used(&self) -> Instant {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Agent {
    /// Opens a pipe.
    pub(crate) async fn open_pipe(self: Arc<Self>, call: OpenPipe) -> Result<PipeOpened, Problem> {
        let here = self.sandboxes.find(&call.sandbox)?;
        let using = here.begin(None).await?;
        let mut stat = None;
        let end = match call.what {
            Piped::Watch { path, recursive } => {
                let watch = using.session.watch(&WatchSpec { path, recursive }).await;
                End::Watch(watch.map_err(|error| from_session(&error))?)
            }
            Piped::Put { path, size, mode } => {
                self.feed_guest(using, size, move |session, bytes| async move {
                    let spec = PutSpec { path, mode, size };
                    let put = session.put(&spec, bytes).await;
                    put.map_err(|error| from_put(&error))?;
                    Ok(PipeDone {
                        entries: 1,
                        bytes: size,
                    })
                })
            }
            Piped::Unpack { path } => {
                self.feed_guest(using, u64::MAX, move |session, bytes| async move {
                    let unpacked = session
                        .unpack(&path, &ArchiveLimits::default(), bytes)
                        .await;
                    let unpacked = unpacked.map_err(|error| from_unpack(&error))?;
                    Ok(PipeDone {
                        entries: unpacked.entries,
                        bytes: unpacked.bytes,
                    })
                })
            }
            Piped::Get {
                path,
                offset,
                length,
            } => {
                let found = using.session.stat(&path).await;
                let found = found.map_err(|error| from_session(&error))?;
                stat = Some(entry(last(&path).as_bytes(), found));
                self.read_guest(using, move |session, bytes| async move {
                    let spec = GetRangeSpec {
                        path,
                        offset,
                        length,
                    };
                    let got = session.get_range(&spec, bytes).await;
                    let got = got.map_err(|error| from_session(&error))?;
                    Ok(PipeDone {
                        entries: 1,
                        bytes: spec.count(got.size),
                    })
                })
            }
            Piped::Pack { path } => self.read_guest(using, move |session, bytes| async move {
                let packed = session.pack(&path, &ArchiveLimits::default(), bytes).await;
                let packed = packed.map_err(|error| from_pack(&error))?;
                Ok(PipeDone {
                    entries: packed.entries,
                    bytes: packed.bytes,
                })
            }),
        };
        let pipe = self.sandboxes.pipes.insert(end)?;
        self.tasks.spawn(close_when_idle(Arc::clone(&self), pipe));
        Ok(PipeOpened { pipe, entry: stat })
    }

    fn feed_guest<F, Fut>(&self, using: Use, left: u64, work: F) -> End
    where
        F: FnOnce(Arc<Session>, DuplexStream) -> Fut + Send + 'static,
        Fut: Future<Output = Done> + Send + 'static,
    {
        let (bytes, task) = self.piped(using, work);
        End::In { bytes, task, left }
    }

    fn read_guest<F, Fut>(&self, using: Use, work: F) -> End
    where
        F: FnOnce(Arc<Session>, DuplexStream) -> Fut + Send + 'static,
        Fut: Future<Output = Done> + Send + 'static,
    {
        let (bytes, task) = self.piped(using, work);
        End::Out { bytes, task }
    }

    fn piped<F, Fut>(&self, using: Use, work: F) -> (DuplexStream, JoinHandle<Done>)
    where
        F: FnOnce(Arc<Session>, DuplexStream) -> Fut + Send + 'static,
        Fut: Future<Output = Done> + Send + 'static,
    {
        let (ours, its) = duplex(MAX_PART_BYTES);
        let task = self.tasks.spawn(async move {
            let done = work(Arc::clone(&using.session), its).await;
            drop(using);
            done
        });
        (ours, task)
    }

    /// Puts a part into a pipe.
    pub(crate) async fn write_pipe(&self, call: WritePipe) -> Result<(), Problem> {
        let pipe = self.sandboxes.pipes.get(call.pipe)?;
        let mut held = pipe.end.lock().await;
        let Some(End::In { bytes, left, .. }) = &mut *held else {
            return Err(wrong_way());
        };
        if call.bytes.len() > MAX_PART_BYTES {
            let cause = format!("a part has at most {MAX_PART_BYTES} bytes");
            return Err(Problem::new(Code::TooLarge, cause));
        }
        let Some(rest) = left.checked_sub(call.bytes.len() as u64) else {
            self.sandboxes.pipes.close(call.pipe);
            self.result(held.take()).await?;
            return Err(too_much());
        };
        *left = rest;
        let written = timeout(IDLE, bytes.write_all(&call.bytes)).await;
        pipe.touch();
        match written {
            Ok(Ok(())) => Ok(()),
            // Its task takes no more: it tells why.
            Ok(Err(_)) => {
                self.sandboxes.pipes.close(call.pipe);
                Err(self
                    .result(held.take())
                    .await
                    .err()
                    .unwrap_or_else(too_much))
            }
            Err(_) => Err(Problem::new(
                Code::Unavailable,
                "the sandbox takes no more bytes",
            )),
        }
    }

    /// Nothing follows: waits for what came of it.
    pub(crate) async fn finish_pipe(&self, call: FinishPipe) -> Result<PipeDone, Problem> {
        let pipe = self.sandboxes.pipes.get(call.pipe)?;
        self.sandboxes.pipes.close(call.pipe);
        let end = pipe.end.lock().await.take();
        match end {
            end @ Some(End::In { .. }) => self.result(end).await,
            _ => Err(wrong_way()),
        }
    }

    /// Closes our side, and waits for the task's answer.
    async fn result(&self, end: Option<End>) -> Done {
        let (bytes, task) = match end {
            Some(End::In { bytes, task, .. } | End::Out { bytes, task }) => (bytes, task),
            Some(End::Watch(_)) | None => return Ok(PipeDone::default()),
        };
        drop(bytes);
        task.await.unwrap_or_else(|error| Err(internal(&error)))
    }

    /// The next part out of a pipe.
    pub(crate) async fn read_pipe(&self, call: ReadPipe) -> Result<PipePart, Problem> {
        let pipe = self.sandboxes.pipes.get(call.pipe)?;
        let wait = Duration::from_millis(call.wait_ms).min(MAX_WAIT);
        let mut held = pipe.end.lock().await;
        let part = match &mut *held {
            Some(End::Out { bytes, .. }) => {
                let mut part = vec![0; MAX_PART_BYTES];
                match timeout(wait, bytes.read(&mut part)).await {
                    Err(_) => PipePart::default(),
                    Ok(Ok(0)) => {
                        self.sandboxes.pipes.close(call.pipe);
                        self.result(held.take()).await?;
                        return Ok(ended());
                    }
                    Ok(Ok(count)) => {
                        part.truncate(count);
                        PipePart {
                            bytes: part,
                            ..PipePart::default()
                        }
                    }
                    Ok(Err(error)) => return Err(internal(&error)),
                }
            }
            Some(End::Watch(watch)) => match timeout(wait, watch.next()).await {
                Err(_) => PipePart::default(),
                Ok(Ok(Some(changes))) => PipePart {
                    events: changes.into_iter().map(event).collect(),
                    ..PipePart::default()
                },
                Ok(Ok(None)) => {
                    self.sandboxes.pipes.close(call.pipe);
                    ended()
                }
                Ok(Err(error)) => {
                    self.sandboxes.pipes.close(call.pipe);
                    return Err(from_session(&error));
                }
            },
            _ => return Err(wrong_way()),
        };
        pipe.touch();
        Ok(part)
    }

    /// Closes a pipe.
    pub(crate) fn close_pipe(&self, call: &ClosePipe) {
        self.sandboxes.pipes.close(call.pipe);
    }
}

async fn close_when_idle(agent: Arc<Agent>, id: Uuid) {
    loop {
        let Some(used) = agent
            .sandboxes
            .pipes
            .lock()
            .get(&id)
            .map(|pipe| pipe.used())
        else {
            return;
        };
        if used.elapsed() >= IDLE {
            agent.sandboxes.pipes.close(id);
            return;
        }
        tokio::select! {
            () = sleep_until(used + IDLE) => {}
            () = agent.stop.cancelled() => agent.sandboxes.pipes.close(id),
        }
    }
}

fn ended() -> PipePart {
    PipePart {
        end: true,
        ..PipePart::default()
    }
}

fn wrong_way() -> Problem {
    Problem::new(Code::Invalid, "the pipe does not go that way, or is closed")
}

fn too_much() -> Problem {
    Problem::new(Code::Invalid, "there are more bytes than were announced")
}

fn event(change: Change) -> FileEvent {
    let told = |kind, path: Vec<u8>| FileEvent {
        kind,
        path: text(path).0,
        to: None,
    };
    match change {
        Change::Created(path) => told(FileEventKind::Created, path),
        Change::Modified(path) => told(FileEventKind::Modified, path),
        Change::Deleted(path) => told(FileEventKind::Removed, path),
        Change::Moved { from, to } => FileEvent {
            to: Some(text(to).0),
            ..told(FileEventKind::Moved, from)
        },
        Change::Overflow => told(FileEventKind::Overflow, Vec::new()),
        Change::Gone => told(FileEventKind::Gone, Vec::new()),
    }
}

/// What fails on our side is the sender's: it sent less or more than it announced, or left.
fn from_put(error: &SessionError) -> Problem {
    match error {
        SessionError::HostFile { reason } => {
            let cause = format!("the file did not arrive whole: {reason}");
            Problem::new(Code::Invalid, cause)
        }
        _ => from_session(error),
    }
}

fn from_unpack(error: &UnpackError) -> Problem {
    let code = match error {
        UnpackError::Source { .. } | UnpackError::Malformed { .. } | UnpackError::Entry { .. } => {
            Code::Invalid
        }
        UnpackError::Guest { source, .. } => from_session(source).code,
    };
    told(code, error)
}

fn from_pack(error: &PackError) -> Problem {
    let code = match error {
        PackError::Sink(_) => Code::Internal,
        PackError::Entry { .. } => Code::Invalid,
        PackError::Guest { source, .. } => from_session(source).code,
    };
    told(code, error)
}

/// An error with its causes; a guest may have worded a part of it.
fn told(code: Code, error: &dyn std::error::Error) -> Problem {
    let mut cause = causes(error);
    cause.retain(|c| !c.is_control());
    Problem::new(code, cause)
}
