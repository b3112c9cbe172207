//! Detached execs: programs that outlive the session that started them.
//!
//! ```text
//!   launch ──> running ── ends ──> ended ── forget ──> (gone)
//!                 ▲  │               │
//!          attach │  │ session lost  │ attach: the rest of the output, and the outcome
//!                 └──┘               ▼
//! ```
//!
//! A program's output goes to a buffer for each channel, and stays there until the host has confirmed
//! it. When the buffer is full the program waits in its own `write`. One reader at a time follows an
//! exec; a new one takes over from the one before.

mod ring;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use firelane_guest_proto::frame::{Channel, INITIAL_WINDOW};
use firelane_guest_proto::message::{
    AttachSpec, Attached, DetachedState, Listed, Listing, MAX_DETACHED, Outcome, Refused,
    RefusedCode, is_id,
};

use self::ring::Ring;
use crate::exec::{Command, Remote, Sink, refused};

/// Bytes of each channel that wait for a reader. All buffers together have 8 MiB, which is what the
/// guest-runner can spare of the memory that programs leave it.
const BUFFER_BYTES: u32 = 64 << 10;

/// All detached execs of the guest.
#[derive(Default)]
pub(crate) struct Registry {
    execs: Mutex<BTreeMap<String, Arc<Detached>>>,
}

/// One detached exec.
pub(crate) struct Detached {
    id: String,
    /// To the program.
    commands: Remote,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// None until it was started.
    started: Option<(u32, u64)>,
    stdout: Ring,
    stderr: Ring,
    stdin: Input,
    ended: Option<Result<Outcome, Refused>>,
    reader: Option<Reader>,
    /// Readers that there were.
    readers: u64,
}

/// How far the program's input is.
#[derive(Default)]
struct Input {
    /// Bytes that were passed on to the exec.
    accepted: u64,
    /// Of those, bytes that the program has taken.
    taken: u64,
}

struct Reader {
    number: u64,
    remote: Remote,
    /// It was told that there is something to do, and has not looked yet.
    told: bool,
}

/// What a reader does next.
pub(crate) enum Turn {
    /// Send these bytes.
    Output(Channel, Vec<u8>),
    /// The program has taken this much of the reader's input.
    InputTaken(u32),
    /// Everything was sent: tell how it ended.
    Ended(Result<Outcome, Refused>),
    /// Somebody else follows it now.
    TakenOver,
    /// Wait for a command.
    Wait,
}

/// Where a reader is.
pub(crate) struct Position {
    number: u64,
    stdout: Cursor,
    stderr: Cursor,
    /// Bytes of input that were accepted before this reader came.
    stdin_before: u64,
    stdin_granted: u64,
}

/// A reader's place in one channel.
#[derive(Default)]
struct Cursor {
    sent: u64,
    confirmed: u64,
}

impl Cursor {
    fn at(position: u64) -> Cursor {
        Cursor {
            sent: position,
            confirmed: position,
        }
    }

    /// What may be sent: the host has granted a window beyond what it confirmed.
    fn room(&self) -> usize {
        let window = u64::from(INITIAL_WINDOW).saturating_sub(self.sent - self.confirmed);
        usize::try_from(window).unwrap_or(usize::MAX)
    }
}

impl Registry {
    /// Takes a place for an exec that is about to start.
    pub(crate) fn reserve(&self, id: &str, commands: Remote) -> Result<Arc<Detached>, Refused> {
        if !is_id(id) {
            let message = "a detached exec is named by 1 to 64 letters, digits and -_.";
            return Err(refused(RefusedCode::Invalid, message.into()));
        }
        let mut execs = lock(&self.execs);
        if execs.contains_key(id) {
            let message = format!("there is a detached exec '{id}' already");
            return Err(refused(RefusedCode::Invalid, message));
        }
        if execs.len() >= MAX_DETACHED {
            let message =
                format!("there are {MAX_DETACHED} detached execs: forget some that ended");
            return Err(refused(RefusedCode::Exhausted, message));
        }
        let exec = Arc::new(Detached {
            id: id.into(),
            commands,
            state: Mutex::default(),
        });
        execs.insert(id.into(), Arc::clone(&exec));
        Ok(exec)
    }

    /// The exec of this name, if it was started.
    pub(crate) fn get(&self, id: &str) -> Result<Arc<Detached>, Refused> {
        let found = lock(&self.execs).get(id).cloned();
        found
            .filter(|exec| exec.lock().started.is_some())
            .ok_or_else(|| {
                let message = "there is no detached exec of this name";
                refused(RefusedCode::NotFound, message.into())
            })
    }

    /// Gives up the place of an exec that did not start.
    pub(crate) fn release(&self, id: &str) {
        lock(&self.execs).remove(id);
    }

    /// Removes one that has ended.
    pub(crate) fn forget(&self, id: &str) -> Result<(), Refused> {
        let exec = self.get(id)?;
        if exec.lock().ended.is_none() {
            let message = "it still runs: end it with signal 9 first";
            return Err(refused(RefusedCode::Invalid, message.into()));
        }
        self.release(id);
        Ok(())
    }

    /// Those that were started, by name.
    pub(crate) fn list(&self) -> Listing {
        let execs = lock(&self.execs);
        let listed = execs.values().filter_map(|exec| exec.listed());
        Listing {
            execs: listed.collect(),
        }
    }
}

impl Detached {
    fn listed(&self) -> Option<Listed> {
        let state = self.lock();
        let (pid, started_ns) = state.started?;
        Some(Listed {
            id: self.id.clone(),
            state: match state.ended {
                Some(_) => DetachedState::Ended,
                None => DetachedState::Running,
            },
            pid,
            started_ns,
        })
    }

    /// Lets a reader follow it from now on; the one before, if there is one, is told.
    pub(crate) fn attach(
        &self,
        spec: &AttachSpec,
        remote: Remote,
    ) -> Result<(Position, Attached), Refused> {
        let mut state = self.lock();
        let stdout = place(&state.stdout, spec.stdout_from)?;
        let stderr = place(&state.stderr, spec.stderr_from)?;
        if let Some(before) = state.reader.take() {
            before.remote.send(Command::Look);
        }
        state.readers += 1;
        let number = state.readers;
        state.reader = Some(Reader {
            number,
            remote,
            told: false,
        });
        let attached = Attached {
            pid: state.started.map_or(0, |(pid, _)| pid),
            stdout_at: stdout,
            stderr_at: stderr,
            stdin_at: state.stdin.accepted,
        };
        let position = Position {
            number,
            stdout: Cursor::at(stdout),
            stderr: Cursor::at(stderr),
            stdin_before: state.stdin.accepted,
            stdin_granted: 0,
        };
        // What comes before is with the host.
        self.free(&mut state, Channel::Stdout, stdout);
        self.free(&mut state, Channel::Stderr, stderr);
        Ok((position, attached))
    }

    /// The reader is gone; the exec goes on.
    pub(crate) fn detach(&self, position: &Position) {
        let mut state = self.lock();
        if state.is_read_by(position) {
            state.reader = None;
        }
    }

    /// What the reader does next; what it is given counts as done.
    pub(crate) fn turn(&self, position: &mut Position, most: usize) -> Turn {
        let mut state = self.lock();
        if !state.is_read_by(position) {
            return Turn::TakenOver;
        }
        let mine = state.stdin.taken.saturating_sub(position.stdin_before);
        let fresh = mine.saturating_sub(position.stdin_granted);
        if fresh > 0 {
            position.stdin_granted += fresh;
            return Turn::InputTaken(u32::try_from(fresh).unwrap_or(u32::MAX));
        }
        let State { stdout, stderr, .. } = &*state;
        for (channel, ring, cursor) in [
            (Channel::Stdout, stdout, &mut position.stdout),
            (Channel::Stderr, stderr, &mut position.stderr),
        ] {
            let bytes = ring.read(cursor.sent, cursor.room().min(most));
            if !bytes.is_empty() {
                cursor.sent += bytes.len() as u64;
                return Turn::Output(channel, bytes);
            }
        }
        let all_sent = position.stdout.sent >= stdout.end() && position.stderr.sent >= stderr.end();
        match &state.ended {
            Some(ended) if all_sent => Turn::Ended(ended.clone()),
            _ => {
                if let Some(reader) = &mut state.reader {
                    reader.told = false;
                }
                Turn::Wait
            }
        }
    }

    /// The host has taken so many bytes more of what the reader sent.
    pub(crate) fn confirm(&self, position: &mut Position, channel: Channel, bytes: u32) {
        let cursor = match channel {
            Channel::Stdout => &mut position.stdout,
            Channel::Stderr => &mut position.stderr,
            _ => return,
        };
        cursor.confirmed = (cursor.confirmed + u64::from(bytes)).min(cursor.sent);
        let confirmed = cursor.confirmed;
        let mut state = self.lock();
        if state.is_read_by(position) {
            self.free(&mut state, channel, confirmed);
        }
    }

    /// Passes input on to the program, as far as little enough waits for it; gives the rest back.
    pub(crate) fn feed(&self, position: &Position, mut bytes: Vec<u8>) -> Vec<u8> {
        let mut state = self.lock();
        if !state.is_read_by(position) {
            return bytes;
        }
        let waiting = state.stdin.accepted - state.stdin.taken;
        let room = u64::from(INITIAL_WINDOW).saturating_sub(waiting);
        let now = bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX));
        let rest = bytes.split_off(now);
        if !bytes.is_empty() {
            state.stdin.accepted += bytes.len() as u64;
            self.commands.send(Command::Stdin(bytes));
        }
        rest
    }

    /// Passes a command on to the program.
    pub(crate) fn command(&self, command: Command) {
        self.commands.send(command);
    }

    /// How it ended.
    pub(crate) fn end(&self, ended: Result<Outcome, Refused>) {
        let mut state = self.lock();
        state.ended = Some(ended);
        state.tell();
    }

    /// Forgets what comes before `position`: the program may write as much again.
    fn free(&self, state: &mut State, channel: Channel, position: u64) {
        let freed = state.ring(channel).confirm(position);
        if freed > 0 {
            self.commands.send(Command::Grant(channel, freed));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl State {
    fn ring(&mut self, channel: Channel) -> &mut Ring {
        match channel {
            Channel::Stderr => &mut self.stderr,
            _ => &mut self.stdout,
        }
    }

    fn is_read_by(&self, position: &Position) -> bool {
        let reader = self.reader.as_ref();
        reader.is_some_and(|reader| reader.number == position.number)
    }

    /// Tells the reader that there is something to do, once until it looks.
    fn tell(&mut self) {
        if let Some(reader) = self.reader.as_mut().filter(|reader| !reader.told) {
            reader.told = true;
            reader.remote.send(Command::Look);
        }
    }
}

/// Where a reader begins: where it says, if that is kept.
fn place(ring: &Ring, wanted: Option<u64>) -> Result<u64, Refused> {
    let (start, end) = (ring.start(), ring.end());
    match wanted {
        None => Ok(start),
        Some(position) if (start..=end).contains(&position) => Ok(position),
        Some(position) => {
            let message = format!("position {position} is not kept: {start} to {end} are");
            Err(refused(RefusedCode::Invalid, message))
        }
    }
}

/// Takes what a detached program does. It never fails: nobody's absence ends the program.
pub(crate) struct Buffers<'a> {
    pub(crate) exec: &'a Detached,
    /// Called when the program runs.
    pub(crate) launched: &'a mut dyn FnMut(),
}

impl Sink for Buffers<'_> {
    fn started(&mut self, pid: u32) -> io::Result<()> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let started_ns = since.map_or(0, |since| since.as_nanos());
        let started_ns = u64::try_from(started_ns).unwrap_or(u64::MAX);
        self.exec.lock().started = Some((pid, started_ns));
        (self.launched)();
        Ok(())
    }

    fn output(&mut self, channel: Channel, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.exec.lock();
        state.ring(channel).push(bytes);
        state.tell();
        Ok(())
    }

    fn stdin_taken(&mut self, bytes: usize) -> io::Result<()> {
        let mut state = self.exec.lock();
        state.stdin.taken += bytes as u64;
        state.tell();
        Ok(())
    }

    fn initial_window(&self) -> u64 {
        BUFFER_BYTES.into()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
