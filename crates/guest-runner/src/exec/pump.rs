//! Moves bytes between a running program and its owner until both are done.
//!
//! ```text
//!   Running ── main process ends | time limit | abort | SIGKILL ──> Ending (tree killed)
//!   Ending  ── all pipes at their end, tree empty ──> Outcome
//! ```

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use firelane_guest_proto::frame::Channel;
use firelane_guest_proto::message::{Exit, Outcome};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::Signal;

use super::plan::Plan;
use super::spawn::{self, Running};
use super::{Command, Local, Sink};
use crate::cgroup::Cgroup;
use crate::console;
use crate::workers::Buffer;

/// How long a killed tree may take to disappear before the outcome is told without it.
const ENDING_DEADLINE: Duration = Duration::from_secs(10);
/// How often the tree is looked at while it disappears.
const ENDING_POLL: Duration = Duration::from_millis(2);
/// How often a tree is killed again that is still there: a process that is just being made when the
/// kernel kills its group can escape.
const KILL_AGAIN: Duration = Duration::from_millis(500);
/// Byte that a terminal reads as the end of input (`VEOF`, control-D).
const TERMINAL_END: u8 = 4;

/// One of the program's outputs.
struct Output {
    channel: Channel,
    fd: Option<OwnedFd>,
    window: u64,
    left: u64,
    truncated: bool,
}

/// The program's input.
struct Input {
    fd: Option<OwnedFd>,
    pending: VecDeque<u8>,
    ended: bool,
    terminal: bool,
}

struct Pump<'a> {
    running: Running,
    plan: &'a Plan,
    input: Input,
    outputs: Vec<Output>,
    buffer: Buffer,
    killed_at: Option<Instant>,
    /// When it is killed again, if it is still there.
    kill_again: Option<Instant>,
    /// When something last moved, or was allowed to.
    moved_at: Instant,
    timed_out: bool,
    aborted: bool,
}

/// How a program ended. Its cgroup goes when this is dropped: the outcome need not wait for that.
pub(crate) struct Ended {
    pub(crate) outcome: Outcome,
    _group: Emptied,
}

/// The cgroup of a tree that has ended.
struct Emptied(Cgroup);

impl Drop for Emptied {
    fn drop(&mut self) {
        if let Err(error) = self.0.remove() {
            console::log(&format!("a cgroup stays: {error}"));
        }
    }
}

/// Pumps until the outcome is known. An error means that nobody listens any more, or that the
/// guest-runner itself failed; the tree is ended in any case.
pub(crate) fn pump(
    running: Running,
    plan: &Plan,
    local: &Local,
    sink: &mut dyn Sink,
) -> io::Result<Ended> {
    let start = Instant::now();
    let mut pump = Pump::new(running, plan, sink.initial_window());
    let pumped = sink
        .started(pump.running.pid.as_raw_nonzero().get().unsigned_abs())
        .and_then(|()| pump.run(start, local, sink));
    let outcome = pump.end_tree().and_then(|()| pump.outcome(start));
    pumped?;
    Ok(Ended {
        outcome: outcome?,
        _group: Emptied(pump.running.group),
    })
}

impl<'a> Pump<'a> {
    fn new(mut running: Running, plan: &'a Plan, window: u64) -> Pump<'a> {
        let left = match plan.limits.output_bytes {
            0 => u64::MAX,
            bytes => bytes,
        };
        let output = |channel, fd| Output {
            channel,
            fd,
            window,
            left,
            truncated: false,
        };
        let stdin = running.stdin.take();
        let stdout = running.stdout.take();
        let stderr = running.stderr.take();
        Pump {
            input: Input {
                fd: stdin,
                pending: VecDeque::new(),
                ended: false,
                terminal: plan.pty.is_some(),
            },
            outputs: vec![
                output(Channel::Stdout, stdout),
                output(Channel::Stderr, stderr),
            ],
            running,
            plan,
            buffer: Buffer::take(),
            killed_at: None,
            kill_again: None,
            moved_at: Instant::now(),
            timed_out: false,
            aborted: false,
        }
    }

    fn run(&mut self, start: Instant, local: &Local, sink: &mut dyn Sink) -> io::Result<()> {
        let deadline = match self.plan.limits.timeout_ms {
            0 => None,
            ms => start.checked_add(Duration::from_millis(ms)),
        };
        while !self.finished() {
            self.wait(local, deadline)?;
            local.wake.clear();
            while let Ok(command) = local.commands.try_recv() {
                self.obey(command)?;
            }
            if self.aborted {
                return Err(io::Error::other("the connection is gone"));
            }
            if let Some(again) = self.kill_again {
                if Instant::now() >= again {
                    self.kill()?;
                }
            } else if self.running.watch.status().is_some() {
                // What the main process leaves behind ends with it.
                self.kill()?;
            } else if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                self.timed_out = true;
                self.kill()?;
            }
            self.feed(sink)?;
            for output in &mut self.outputs {
                if output.pass_on(&mut self.buffer, sink)? {
                    self.moved_at = Instant::now();
                }
            }
        }
        Ok(())
    }

    /// The main process was collected and nothing more can come out of the pipes.
    fn finished(&self) -> bool {
        let drained = self.outputs.iter().all(|output| output.fd.is_none());
        let overdue = self
            .ending_deadline()
            .is_some_and(|deadline| Instant::now() >= deadline);
        self.running.watch.status().is_some() && (drained || overdue)
    }

    /// Until when pipes of a killed tree are waited for; for ever while it is the owner who does
    /// not take what is in them.
    fn ending_deadline(&self) -> Option<Instant> {
        let killed_at = self.killed_at?;
        let held_up = self
            .outputs
            .iter()
            .any(|output| output.fd.is_some() && !output.wants());
        let since = self.moved_at.max(killed_at);
        if held_up {
            None
        } else {
            since.checked_add(ENDING_DEADLINE)
        }
    }

    /// Waits for anything to do.
    fn wait(&self, local: &Local, deadline: Option<Instant>) -> io::Result<()> {
        let mut fds = vec![PollFd::new(&*local.wake, PollFlags::IN)];
        if let Some(fd) = self
            .input
            .fd
            .as_ref()
            .filter(|_| !self.input.pending.is_empty())
        {
            fds.push(PollFd::new(fd, PollFlags::OUT));
        }
        for output in &self.outputs {
            if let Some(fd) = output.fd.as_ref().filter(|_| output.wants()) {
                fds.push(PollFd::new(fd, PollFlags::IN));
            }
        }
        // What is overdue is looked at now and then: it needs the processor, to end.
        let until = self.kill_again.or(deadline);
        let timeout = until.map(|until| {
            let left = until.saturating_duration_since(Instant::now());
            Timespec {
                tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            }
        });
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn obey(&mut self, command: Command) -> io::Result<()> {
        match command {
            Command::Stdin(bytes) => self.input.pending.extend(bytes),
            Command::StdinEnd => self.input.ended = true,
            Command::Grant(channel, bytes) => {
                self.moved_at = Instant::now();
                for output in self
                    .outputs
                    .iter_mut()
                    .filter(|output| output.channel == channel)
                {
                    output.window = output.window.saturating_add(bytes.into());
                }
            }
            Command::Signal(number) => self.signal(number)?,
            Command::Resize(size) => {
                if let Some(terminal) = &self.running.terminal {
                    spawn::resize(terminal.as_fd(), size)?;
                }
            }
            Command::Abort => self.aborted = true,
            // Not for the program.
            Command::Look => {}
        }
        Ok(())
    }

    fn signal(&mut self, number: i32) -> io::Result<()> {
        if number == libc::SIGKILL {
            return self.kill();
        }
        let Some(signal) = Signal::from_named_raw(number) else {
            return Ok(());
        };
        if self.running.watch.status().is_some() {
            return Ok(());
        }
        match rustix::process::kill_process_group(self.running.pid, signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Kills what is left of the tree; most often that is nothing.
    fn kill(&mut self) -> io::Result<()> {
        let now = Instant::now();
        self.killed_at.get_or_insert(now);
        self.kill_again = now.checked_add(KILL_AGAIN);
        match self.running.group.populated()? {
            true => self.running.group.kill(),
            false => Ok(()),
        }
    }

    /// Writes pending input to the program, as much as it takes.
    fn feed(&mut self, sink: &mut dyn Sink) -> io::Result<()> {
        let input = &mut self.input;
        if input.ended && input.terminal {
            input.pending.push_back(TERMINAL_END);
            input.ended = false;
        }
        while let Some(fd) = input.fd.as_ref().filter(|_| !input.pending.is_empty()) {
            match rustix::io::write(fd, input.pending.make_contiguous()) {
                Ok(count) => {
                    input.pending.drain(..count);
                    sink.stdin_taken(count)?;
                }
                Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
                // The program closed its input: what else comes is dropped, as a shell would.
                Err(_) => input.fd = None,
            }
        }
        if input.fd.is_none() && !input.pending.is_empty() {
            sink.stdin_taken(input.pending.len())?;
            input.pending.clear();
        }
        if input.ended {
            input.fd = None;
        }
        Ok(())
    }

    /// Ends the whole tree and waits until the kernel has let go of it.
    fn end_tree(&mut self) -> io::Result<()> {
        if self.killed_at.is_none() {
            self.kill()?;
        }
        let start = Instant::now();
        while self.running.watch.status().is_none() || self.running.group.populated()? {
            if start.elapsed() > ENDING_DEADLINE {
                return Err(io::Error::other("the program's processes do not end"));
            }
            std::thread::sleep(ENDING_POLL);
            if self.kill_again.is_some_and(|again| Instant::now() >= again) {
                self.kill()?;
            }
        }
        Ok(())
    }

    fn outcome(&self, start: Instant) -> io::Result<Outcome> {
        let group = &self.running.group;
        let status = self.running.watch.status();
        let status = status.ok_or_else(|| io::Error::other("the program's end was not seen"))?;
        let truncated = |channel| {
            self.outputs
                .iter()
                .any(|output| output.channel == channel && output.truncated)
        };
        Ok(Outcome {
            exit: exit(status),
            timed_out: self.timed_out,
            // Then the whole group was killed.
            out_of_memory: status.signal() == Some(libc::SIGKILL) && group.out_of_memory()?,
            stdout_truncated: truncated(Channel::Stdout),
            stderr_truncated: truncated(Channel::Stderr),
            interpreter: self.plan.interpreter.clone(),
            wall_us: start.elapsed().as_micros().try_into().unwrap_or(u64::MAX),
            cpu_us: group.cpu_us()?,
            peak_memory_bytes: group.peak_memory_bytes().unwrap_or(0),
        })
    }
}

fn exit(status: ExitStatus) -> Exit {
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Signal(libc::SIGKILL),
    }
}

impl Output {
    /// Whether bytes could be read now: there is a window for them, or they are dropped anyway.
    fn wants(&self) -> bool {
        self.window > 0 || self.left == 0
    }

    /// Reads what is there and passes on what may be; what is over the limit is dropped. Tells
    /// whether anything was read.
    fn pass_on(&mut self, buffer: &mut [u8], sink: &mut dyn Sink) -> io::Result<bool> {
        let mut moved = false;
        // A few rounds, then the other channels and the clock get their turn.
        for _ in 0..8 {
            let Some(fd) = self.fd.as_ref().filter(|_| self.wants()) else {
                return Ok(moved);
            };
            let room = match self.left {
                0 => u64::MAX,
                left => self.window.min(left),
            };
            let room = usize::try_from(room)
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            match rustix::io::read(fd, &mut buffer[..room]) {
                // A terminal whose programs are gone gives an error in place of an end.
                Ok(0) | Err(Errno::IO) => self.fd = None,
                Ok(_) if self.left == 0 => {
                    self.truncated = true;
                    moved = true;
                }
                Ok(count) => {
                    self.left -= count as u64;
                    self.window -= count as u64;
                    sink.output(self.channel, &buffer[..count])?;
                    moved = true;
                }
                Err(Errno::AGAIN | Errno::INTR) => return Ok(moved),
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(moved)
    }
}
