//! Requests about files and folders.
//!
//! What is quick is done by the reader, so that it happens in the order in which it was asked for;
//! what may take its time has a thread.

use std::fs::File;
use std::io::{self, Read};

use firelane_guest_proto::files::{
    Events, FileStat, GetRangeSpec, MAX_EVENTS_BYTES, MAX_WATCHES, WatchSpec,
};
use firelane_guest_proto::frame::{Channel, Frame, INITIAL_WINDOW, Kind, MAX_DATA_BYTES};
use firelane_guest_proto::message::{GetSpec, Refused, RefusedCode, from_frame, to_frame};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use serde::Serialize;

use super::SessionError;
use super::get::send_bytes;
use super::streams::{Stream, Streams, unreadable};
use super::writer::Writer;
use crate::exec::{self, Command, Local, refused};
use crate::files::{self, AsUser, Watcher};

/// How long changes are gathered before they are told: bounds frames, and joins what belongs
/// together.
const GATHER: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 50_000_000,
};

impl Streams {
    /// Opens a stream for a request about files.
    pub(super) fn files(&self, frame: &Frame) -> Result<(), SessionError> {
        let id = frame.stream;
        match frame.kind {
            Kind::Get => {
                let spec = from_frame(frame)?;
                self.thread(id, "get", move |local, writer| {
                    get(id, &spec, local, writer)
                })
            }
            Kind::GetRange => self.range(id, &from_frame(frame)?),
            Kind::ListDir => {
                let spec = from_frame(frame)?;
                self.thread(id, "list", move |_, writer| {
                    tell(id, Kind::Entries, &files::list_dir(&spec)?, writer)
                })
            }
            Kind::Remove => {
                let spec = from_frame(frame)?;
                self.thread(id, "remove", move |local, _| {
                    let wanted = || !matches!(local.pending_command(), Some(Command::Abort));
                    files::remove(&spec, wanted)
                })
            }
            Kind::Watch => {
                let spec = from_frame(frame)?;
                if self.watches() >= MAX_WATCHES {
                    let message = format!("the session has {MAX_WATCHES} watches already");
                    return self.at_once(id, || Err(refused(RefusedCode::Exhausted, message)));
                }
                self.thread(id, "watch", move |local, writer| {
                    watch(id, &spec, local, writer)
                })
            }
            Kind::Stat => {
                let spec = from_frame(frame)?;
                self.at_once(id, || {
                    tell(id, Kind::FileStat, &files::stat(&spec)?, self.writer())
                })
            }
            Kind::MakeDir => {
                let spec = from_frame(frame)?;
                self.at_once(id, || files::make_dir(&spec))
            }
            Kind::MakeLink => {
                let spec = from_frame(frame)?;
                self.at_once(id, || files::make_link(&spec))
            }
            Kind::Move => {
                let spec = from_frame(frame)?;
                self.at_once(id, || files::move_to(&spec))
            }
            kind => Err(SessionError::Unexpected { kind }),
        }
    }

    /// Sends a part of a file: a small one at once, as if it were an answer.
    fn range(&self, id: u32, spec: &GetRangeSpec) -> Result<(), SessionError> {
        let opened = self.require_fresh().and_then(|()| {
            let _user = AsUser::begin()?;
            files::open_range(spec)
        });
        let (file, stat) = match opened {
            Ok(opened) => opened,
            Err(refused) => return self.at_once(id, || Err(refused)),
        };
        let count = spec.count(stat.size);
        if count > MAX_DATA_BYTES as u64 {
            return self.thread(id, "get", move |local, writer| {
                tell(id, Kind::FileStat, &stat, writer)?;
                send_bytes(id, file, count, local, writer)
            });
        }
        self.at_once(id, || {
            let frames = small(id, file, &stat, count).map_err(|error| unreadable(&error))?;
            let mut sent = frames.iter().map(|frame| self.writer().send_soon(frame));
            sent.try_for_each(|sent| sent)
                .map_err(|error| unreadable(&error))
        })
    }

    /// Carries a request out before the next frame is read.
    fn at_once(
        &self,
        id: u32,
        work: impl FnOnce() -> Result<(), Refused>,
    ) -> Result<(), SessionError> {
        let Some(()) = self.admit(id)? else {
            return Ok(());
        };
        let fresh = self.require_fresh();
        let done = fresh.and_then(|()| {
            let _user = AsUser::begin()?;
            work()
        });
        Ok(self.tell_done_soon(id, done)?)
    }

    /// Carries a request out while the session goes on.
    fn thread(
        &self,
        id: u32,
        name: &str,
        work: impl FnOnce(&Local, &Writer) -> Result<(), Refused> + Send + 'static,
    ) -> Result<(), SessionError> {
        let Some(()) = self.admit(id)? else {
            return Ok(());
        };
        let (remote, local) = exec::control()?;
        let stream = if name == "watch" {
            Stream::Watch(remote)
        } else {
            Stream::Files(remote)
        };
        self.insert(id, stream);
        let streams = self.clone();
        self.workers().run(move || {
            let done = streams.require_fresh().and_then(|()| {
                let _user = AsUser::begin()?;
                work(&local, streams.writer())
            });
            // Closed before it is told, so that the host may reuse the number at once.
            streams.remove(id);
            // A host that is gone does not miss it.
            drop(streams.tell_done(id, done));
        })?;
        Ok(())
    }
}

fn get(id: u32, spec: &GetSpec, local: &Local, writer: &Writer) -> Result<(), Refused> {
    let (file, info) = files::open_for_get(spec)?;
    tell(id, Kind::FileInfo, &info, writer)?;
    send_bytes(id, file, info.size, local, writer)
}

/// All frames of a small part of a file but the last.
fn small(id: u32, mut file: File, stat: &FileStat, count: u64) -> io::Result<Vec<Frame>> {
    let mut bytes = vec![0; usize::try_from(count).map_err(io::Error::other)?];
    file.read_exact(&mut bytes)?;
    let mut frames = vec![to_frame(id, Kind::FileStat, stat).map_err(io::Error::other)?];
    if !bytes.is_empty() {
        frames.push(Frame::data(id, Channel::File, &bytes));
    }
    frames.push(Frame::end(id, Channel::File));
    Ok(frames)
}

/// Tells what changes, until the host has heard enough.
fn watch(id: u32, spec: &WatchSpec, local: &Local, writer: &Writer) -> Result<(), Refused> {
    let mut watcher = Watcher::start(spec)?;
    let failed = |error: io::Error| {
        refused(
            RefusedCode::Internal,
            format!("cannot watch any longer: {error}"),
        )
    };
    let started = Frame::new(id, Kind::Started, Vec::new());
    writer.send(&started).map_err(failed)?;
    let mut window = u64::from(INITIAL_WINDOW);
    loop {
        local.clear_wake();
        while let Some(command) = local.pending_command() {
            match command {
                Command::Grant(Channel::File, bytes) => window += u64::from(bytes),
                Command::Abort => return Ok(()),
                _ => {}
            }
        }
        // Room for the largest batch, so that it need not be known how large the next one is.
        while watcher.has_news() && window >= MAX_EVENTS_BYTES as u64 {
            let changes = watcher.told(MAX_EVENTS_BYTES / 2);
            let mut frame = to_frame(id, Kind::Events, &Events { changes })
                .map_err(|error| failed(io::Error::other(error)))?;
            frame.channel = Channel::File;
            window = window.saturating_sub(frame.payload.len() as u64);
            writer.send(&frame).map_err(failed)?;
        }
        if watcher.is_gone() && !watcher.has_news() {
            return Ok(());
        }
        let mut fds = [
            PollFd::new(local.wake(), PollFlags::IN),
            PollFd::new(&watcher, PollFlags::IN),
        ];
        wait(&mut fds, None).map_err(failed)?;
        if !fds[1].revents().is_empty() {
            wait(&mut fds[..1], Some(&GATHER)).map_err(failed)?;
            watcher.read().map_err(|errno| failed(errno.into()))?;
        }
    }
}

fn wait(fds: &mut [PollFd<'_>], limit: Option<&Timespec>) -> io::Result<()> {
    match poll(fds, limit) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Sends a message of the stream.
fn tell<T: Serialize>(id: u32, kind: Kind, message: &T, writer: &Writer) -> Result<(), Refused> {
    writer.send_message(id, kind, message).map_err(|error| {
        refused(
            RefusedCode::Internal,
            format!("cannot tell what there is: {error}"),
        )
    })
}
