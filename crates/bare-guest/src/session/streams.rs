//! The open streams of a session: each is a program that runs.

use alloc::format;
use alloc::vec::Vec;

use firelane_guest_proto::frame::{Channel, Frame, Kind, MAX_DATA_BYTES, MAX_STREAMS};
use firelane_guest_proto::message::{ExecSpec, Exit, Outcome, RefusedCode};

use super::program::{self, Running, Start, Task};
use super::{MAX_OUTPUT, Session, SessionError, State};
use crate::guest::{Guest, Machine, refused};

/// What is no frame: the kind is of no version.
const GARBAGE: [u8; 16] = [0xff; 16];
/// The signal that ends what has run for too long.
const SIGKILL: u8 = 9;
/// Signals that programs ignore: CHLD, CONT, STOP, TSTP, TTIN, TTOU, URG, WINCH; stopping is
/// nothing that a bare guest does. Source: Linux, signal(7), for x86.
const IGNORED: [u8; 8] = [17, 18, 19, 20, 21, 22, 23, 28];
/// The highest number of a signal.
const LAST_SIGNAL: u8 = 64;

/// How a program ended.
struct End {
    exit: Exit,
    timed_out: bool,
}

impl Session {
    /// Opens a stream that runs a program.
    pub(super) fn exec(
        &mut self,
        id: u32,
        spec: &ExecSpec,
        guest: &mut Guest,
        machine: &mut dyn Machine,
    ) -> Result<(), SessionError> {
        if !self.admit(id)? {
            return Ok(());
        }
        let started = guest
            .require_fresh()
            .and_then(|()| program::start(spec, guest, machine));
        let (name, start) = match started {
            Ok(started) => started,
            Err(refused) => {
                self.send_message(id, Kind::Refused, &refused);
                return Ok(());
            }
        };
        self.send(&Frame::new(id, Kind::Started, Vec::new()));
        match start {
            Start::Goes(task) => {
                let running = Running::new(name, task, spec, machine);
                self.streams.insert(id, running);
            }
            Start::Done(channel, text, code) => {
                let mut running = Running::new(name, Task::Spin, spec, machine);
                let passed = running.limited(text.len());
                let exit = Exit::Code(code);
                self.print(id, channel, &text.as_bytes()[..passed]);
                let timed_out = false;
                self.exited(id, &running, &End { exit, timed_out }, machine);
            }
            Start::Garbage => self.output.extend_from_slice(&GARBAGE),
            Start::Silent => {
                self.end(guest);
                self.state = State::Silent;
            }
        }
        Ok(())
    }

    /// Lets each program go on as far as it can; gives whether one did.
    pub(super) fn run(&mut self, guest: &mut Guest, machine: &mut dyn Machine) -> bool {
        let now = self.streams.values().any(|s| s.deadline_us.is_some());
        let now = now.then(|| machine.now_us());
        let ids: Vec<u32> = self.streams.keys().copied().collect();
        let mut moved = false;
        for id in ids {
            if self.waiting() >= MAX_OUTPUT {
                return true;
            }
            let Some(mut running) = self.streams.remove(&id) else {
                continue;
            };
            moved |= running.task.is_busy();
            let late = matches!((running.deadline_us, now), (Some(at), Some(now)) if now >= at);
            let end = if late {
                Some(End {
                    exit: Exit::Signal(SIGKILL.into()),
                    timed_out: true,
                })
            } else {
                self.step(id, &mut running, machine, &mut moved)
            };
            match end {
                None => drop(self.streams.insert(id, running)),
                Some(end) => {
                    moved = true;
                    self.exited(id, &running, &end, machine);
                    running.release(guest);
                }
            }
        }
        moved
    }

    /// One turn of a program; how it ended, if it did.
    fn step(
        &mut self,
        id: u32,
        running: &mut Running,
        machine: &mut dyn Machine,
        moved: &mut bool,
    ) -> Option<End> {
        let code = if let Task::Cat { ended, .. } = running.task {
            let done = self.pass(id, running, moved) && ended;
            done.then_some(0)
        } else {
            let (text, code) = running.task.work(machine)?;
            let passed = running.limited(text.len());
            self.print(id, Channel::Stdout, &text.as_bytes()[..passed]);
            Some(code)
        };
        code.map(|code| End {
            exit: Exit::Code(code),
            timed_out: false,
        })
    }

    /// Passes input on as far as the window allows; gives whether all of it is gone.
    fn pass(&mut self, id: u32, running: &mut Running, moved: &mut bool) -> bool {
        let Task::Cat { input, .. } = &mut running.task else {
            return true;
        };
        let mut input = core::mem::take(input);
        let mut taken = 0;
        while taken < input.len() && self.waiting() < MAX_OUTPUT {
            let count = (input.len() - taken).min(MAX_DATA_BYTES);
            let window = match running.output_left {
                // Bytes over the limit of the output are dropped, and take nothing from the window.
                Some(0) => u64::MAX,
                Some(left) => running.stdout_window.min(left),
                None => running.stdout_window,
            };
            let count = count.min(usize::try_from(window).unwrap_or(usize::MAX));
            if count == 0 {
                break;
            }
            let passed = running.limited(count);
            self.print(id, Channel::Stdout, &input[taken..taken + passed]);
            running.stdout_window -= passed as u64;
            taken += count;
        }
        if taken > 0 {
            *moved = true;
            input.drain(..taken);
            let granted = u32::try_from(taken).unwrap_or(u32::MAX);
            running.stdin_window = running.stdin_window.saturating_add(granted);
            self.send(&Frame::window(id, Channel::Stdin, granted));
        }
        let empty = input.is_empty();
        if let (Task::Cat { input: kept, .. }, false) = (&mut running.task, empty) {
            *kept = input;
        }
        empty
    }

    /// Bytes for a program.
    pub(super) fn data(
        &mut self,
        id: u32,
        channel: Channel,
        bytes: &[u8],
    ) -> Result<(), SessionError> {
        let Some(running) = self.streams.get_mut(&id) else {
            return Ok(());
        };
        if channel != Channel::Stdin {
            return Ok(());
        }
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        running.stdin_window = running
            .stdin_window
            .checked_sub(length)
            .ok_or(SessionError::Window { stream: id })?;
        if let Task::Cat {
            input,
            ended: false,
        } = &mut running.task
        {
            input.extend_from_slice(bytes);
        }
        Ok(())
    }

    /// No more input for a program.
    pub(super) fn input_ends(&mut self, id: u32, channel: Channel) {
        let running = self.streams.get_mut(&id);
        if let (Some(Task::Cat { ended, .. }), Channel::Stdin) =
            (running.map(|running| &mut running.task), channel)
        {
            *ended = true;
        }
    }

    /// The host takes more of a program's output.
    pub(super) fn granted(&mut self, id: u32, channel: Channel, bytes: u32) {
        if let (Some(running), Channel::Stdout) = (self.streams.get_mut(&id), channel) {
            running.stdout_window = running.stdout_window.saturating_add(bytes.into());
        }
    }

    /// A signal for a program.
    pub(super) fn signal(
        &mut self,
        id: u32,
        number: u8,
        guest: &mut Guest,
        machine: &mut dyn Machine,
    ) {
        if !(1..=LAST_SIGNAL).contains(&number) || IGNORED.contains(&number) {
            return;
        }
        if let Some(running) = self.streams.remove(&id) {
            let end = End {
                exit: Exit::Signal(number.into()),
                timed_out: false,
            };
            self.exited(id, &running, &end, machine);
            running.release(guest);
        }
    }

    /// Whether the stream may be opened; a session that is full refuses it, and goes on.
    pub(super) fn admit(&mut self, id: u32) -> Result<bool, SessionError> {
        if id == 0 || self.streams.contains_key(&id) {
            return Err(SessionError::StreamTaken { stream: id });
        }
        if self.streams.len() < MAX_STREAMS {
            return Ok(true);
        }
        let message = format!("the session has {MAX_STREAMS} open streams already");
        let full = refused(RefusedCode::Exhausted, &message);
        self.send_message(id, Kind::Refused, &full);
        Ok(false)
    }

    fn print(&mut self, id: u32, channel: Channel, bytes: &[u8]) {
        for bytes in bytes.chunks(MAX_DATA_BYTES) {
            self.send(&Frame::data(id, channel, bytes));
        }
    }

    fn exited(&mut self, id: u32, running: &Running, end: &End, machine: &mut dyn Machine) {
        let outcome = Outcome {
            exit: end.exit,
            timed_out: end.timed_out,
            out_of_memory: false,
            stdout_truncated: running.truncated,
            stderr_truncated: false,
            interpreter: running.name.into(),
            wall_us: machine.now_us().saturating_sub(running.started_us),
            cpu_us: 0,
            peak_memory_bytes: 0,
        };
        self.send_message(id, Kind::Exited, &outcome);
    }
}
