//! The programs that a bare guest has, by the first word of the command.
//!
//! | Command | Does |
//! | --- | --- |
//! | `echo WORDS...` | prints the words |
//! | `cat` | prints its input |
//! | `counter` | prints the next number of the guest's counter |
//! | `dirty MIB` | writes a word of its own into each page of that much memory, prints how many |
//! | `check MIB` | exits with 1 and the first bad page, if those words are not there |
//! | `exit CODE` | exits with it |
//! | `random` | prints 16 bytes of the entropy device |
//! | `identity` | prints the host name and the machine id that the last renewal gave |
//! | `spin` | runs until it is killed |
//! | `silent` | the session says nothing any more, for tests of hosts |
//! | `garbage` | the session sends what is no frame, for tests of hosts |

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use firelane_guest_proto::frame::{Channel, INITIAL_WINDOW};
use firelane_guest_proto::message::{ExecSpec, Program, Refused, RefusedCode};

use crate::guest::{Guest, Machine, refused};

/// The most that a program prints at once, in bytes: far less than a fresh stream's window.
const MAX_PRINT: usize = 64 << 10;
/// Pages that are written or read before others have their turn.
const PAGES_AT_ONCE: u64 = 1024;
const PAGES_PER_MIB: u64 = 256;
/// Exit code of a command that was not given what it needs.
const USAGE: i32 = 2;

/// A program that runs.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) name: &'static str,
    pub(super) task: Task,
    /// Bytes that the host may still send to its stdin.
    pub(super) stdin_window: u32,
    /// Bytes that may still be sent from its stdout.
    pub(super) stdout_window: u64,
    /// Bytes of stdout that are still passed on, if there is a limit.
    pub(super) output_left: Option<u64>,
    pub(super) truncated: bool,
    pub(super) started_us: u64,
    pub(super) deadline_us: Option<u64>,
}

/// What it is doing.
#[derive(Debug)]
pub(super) enum Task {
    /// Passes its input on.
    Cat { input: Vec<u8>, ended: bool },
    /// Writes pages.
    Dirty { next: u64, end: u64 },
    /// Reads them.
    Check { next: u64, end: u64 },
    /// Nothing, for ever.
    Spin,
}

/// What a program is, before it runs.
pub(super) enum Start {
    /// It has ended: what it printed, and its exit code.
    Done(Channel, String, i32),
    /// It goes on.
    Goes(Task),
    /// The session says nothing any more.
    Silent,
    /// The session sends what is no frame.
    Garbage,
}

/// Finds the program of a command, and does what is quick.
pub(super) fn start(
    spec: &ExecSpec,
    guest: &mut Guest,
    machine: &mut dyn Machine,
) -> Result<(&'static str, Start), Refused> {
    let Program::Command { argv } = &spec.program else {
        let message = "a bare guest has no interpreter";
        return Err(refused(RefusedCode::NoInterpreter, message));
    };
    if spec.pty.is_some() {
        let message = "a bare guest has no terminals";
        return Err(refused(RefusedCode::Invalid, message));
    }
    let Some((name, words)) = argv.split_first() else {
        return Err(refused(RefusedCode::Invalid, "the command is empty"));
    };
    let name = NAMES.into_iter().find(|known| known == name);
    let Some(name) = name else {
        let message = format!("no such command; a bare guest has {}", NAMES.join(", "));
        return Err(refused(RefusedCode::NoInterpreter, &message));
    };
    let started = match name {
        "echo" => echo(words)?,
        "cat" => {
            guest.hold()?;
            Start::Goes(Task::Cat {
                input: Vec::new(),
                ended: false,
            })
        }
        "counter" => print(format!("{}\n", guest.count())),
        "dirty" => pages(words, machine, |end| Task::Dirty { next: 0, end }),
        "check" => pages(words, machine, |end| Task::Check { next: 0, end }),
        "exit" => match words.first().and_then(|code| code.parse::<u8>().ok()) {
            Some(code) => Start::Done(Channel::Stdout, String::new(), code.into()),
            None => complain("exit: give it a code from 0 to 255\n", USAGE),
        },
        "random" => match machine.random() {
            Ok(bytes) => print(format!("{}\n", hex(&bytes))),
            Err(missing) => complain(&format!("random: {missing}\n"), 1),
        },
        "identity" => match &guest.identity {
            Some(identity) => print(format!(
                "{} {}\n",
                identity.hostname,
                hex(&identity.machine_id)
            )),
            None => complain("identity: this guest has never been renewed\n", 1),
        },
        "silent" => Start::Silent,
        "garbage" => Start::Garbage,
        _ => Start::Goes(Task::Spin),
    };
    Ok((name, started))
}

const NAMES: [&str; 11] = [
    "echo", "cat", "counter", "dirty", "check", "exit", "random", "identity", "spin", "silent",
    "garbage",
];

impl Running {
    pub(super) fn new(
        name: &'static str,
        task: Task,
        spec: &ExecSpec,
        machine: &mut dyn Machine,
    ) -> Running {
        let started_us = machine.now_us();
        let timeout_us = spec.limits.timeout_ms.saturating_mul(1000);
        Running {
            name,
            task,
            stdin_window: INITIAL_WINDOW,
            stdout_window: INITIAL_WINDOW.into(),
            output_left: (spec.limits.output_bytes > 0).then_some(spec.limits.output_bytes),
            truncated: false,
            started_us,
            deadline_us: (timeout_us > 0).then(|| started_us.saturating_add(timeout_us)),
        }
    }

    /// Gives back what it holds of the guest.
    pub(super) fn release(self, guest: &mut Guest) {
        if let Task::Cat { .. } = self.task {
            guest.release();
        }
    }

    /// How much of `bytes` is passed on under the limit of its output.
    pub(super) fn limited(&mut self, bytes: usize) -> usize {
        let Some(left) = &mut self.output_left else {
            return bytes;
        };
        let passed = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes);
        *left -= passed as u64;
        self.truncated |= passed < bytes;
        passed
    }
}

impl Task {
    /// Works on memory for a while; what it prints and its exit code, if it has ended.
    pub(super) fn work(&mut self, machine: &mut dyn Machine) -> Option<(String, i32)> {
        match self {
            Task::Dirty { next, end } => {
                let stop = next.saturating_add(PAGES_AT_ONCE).min(*end);
                (*next..stop).for_each(|page| machine.write_page(page, word(page)));
                *next = stop;
                (stop == *end).then(|| (format!("{end}\n"), 0))
            }
            Task::Check { next, end } => {
                let stop = next.saturating_add(PAGES_AT_ONCE).min(*end);
                let bad = (*next..stop).find(|page| machine.read_page(*page) != word(*page));
                *next = stop;
                if let Some(page) = bad {
                    return Some((format!("page {page} is not what it was\n"), 1));
                }
                (stop == *end).then(|| (format!("{end}\n"), 0))
            }
            Task::Cat { .. } | Task::Spin => None,
        }
    }

    /// Whether it has something to do though nobody sends anything.
    pub(super) fn is_busy(&self) -> bool {
        matches!(self, Task::Dirty { .. } | Task::Check { .. })
    }
}

fn print(text: String) -> Start {
    Start::Done(Channel::Stdout, text, 0)
}

fn complain(text: &str, code: i32) -> Start {
    Start::Done(Channel::Stderr, text.into(), code)
}

fn echo(words: &[String]) -> Result<Start, Refused> {
    let mut text = words.join(" ");
    text.push('\n');
    if text.len() > MAX_PRINT {
        let message = "echo prints at most 65536 bytes here; give them to cat";
        return Err(refused(RefusedCode::Invalid, message));
    }
    Ok(print(text))
}

fn pages(words: &[String], machine: &dyn Machine, task: impl FnOnce(u64) -> Task) -> Start {
    let mib = match words {
        [mib] => mib.parse::<u32>().ok(),
        _ => None,
    };
    let Some(mib) = mib else {
        return complain("give it a number of MiB\n", USAGE);
    };
    let (wanted, free) = (u64::from(mib) * PAGES_PER_MIB, machine.pages());
    if wanted > free {
        let free = free / PAGES_PER_MIB;
        return complain(&format!("only {free} MiB of memory are free\n"), USAGE);
    }
    Start::Goes(task(wanted))
}

/// What a page holds: another word in each, and none that fresh memory has.
fn word(page: u64) -> u64 {
    !page.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
