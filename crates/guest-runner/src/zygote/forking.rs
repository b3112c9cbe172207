//! A zygote that forks: its child is the program.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use firelane_guest_proto::Lang;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::Order;
use super::waiting::{Waiting, is_ours, pair};
use crate::Guest;
use crate::cgroup::Cgroup;
use crate::exec::{self, Theirs};
use crate::reaper::Watch;
use crate::wake::Wake;

/// How long it may take to fork.
const FORK_TIMEOUT: Duration = Duration::from_secs(5);

/// How long it may take to collect its child. What the child leaves behind wants the same processor until
/// all of it is killed.
const COLLECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a killed zygote, and then the reaper, may take.
const ORPHAN_TIMEOUT: Duration = Duration::from_secs(10);
/// How often that is looked at.
const ORPHAN_POLL: Duration = Duration::from_millis(10);

/// An interpreter that forks for each program.
pub(crate) struct Zygote {
    lang: Lang,
    waiting: Waiting,
}

/// What the child of a zygote gets, and where it goes.
pub(crate) struct Child<'a> {
    pub(crate) guest: &'a Arc<Guest>,
    pub(crate) group: &'a Cgroup,
    pub(crate) wake: &'a Arc<Wake>,
    /// Its standard streams.
    pub(crate) streams: [&'a OwnedFd; 3],
}

/// A child that runs.
pub(crate) struct Forked {
    pub(crate) pid: Pid,
    pub(crate) watch: Arc<Watch>,
}

/// The program of a language's zygote, and the interpreter's word before it.
fn program(lang: Lang) -> Option<(&'static str, &'static str)> {
    match lang {
        Lang::Python => Some(("-c", include_str!("python.py"))),
        Lang::Ruby => Some(("-e", include_str!("ruby.rb"))),
        Lang::Bash | Lang::Node | Lang::Rust => None,
    }
}

impl Zygote {
    pub(super) fn start(
        guest: &Guest,
        lang: Lang,
        snippets: &[String],
        env: &BTreeMap<String, String>,
    ) -> io::Result<Option<Zygote>> {
        let (Some((word, source)), Some(interpreter)) = (program(lang), exec::interpreter(lang))
        else {
            return Ok(None);
        };
        // It has the filter of its children.
        if !guest.tier.has_processes() {
            return Ok(None);
        }
        let mut command = Command::new(interpreter);
        command
            .args([word, source])
            .args(snippets)
            .env_clear()
            .envs(env)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let waiting = Waiting::start(guest, lang, &mut command, env.clone())?;
        Ok(Some(Zygote { lang, waiting }))
    }

    pub(super) fn lang(&self) -> Lang {
        self.lang
    }

    pub(super) fn env(&self) -> &BTreeMap<String, String> {
        self.waiting.env()
    }

    /// Has it fork a child that waits for a program with these streams, and that it lets go of.
    pub(super) fn park(&self, guest: &Guest, theirs: &Theirs) -> io::Result<Waiting> {
        let (control, its) = pair()?;
        let Theirs {
            stdin,
            stdout,
            stderr,
        } = theirs;
        let descriptors = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd(), its.as_fd()];
        self.waiting.ask_for_child(&descriptors)?;
        drop(its);
        match self.waiting.line(FORK_TIMEOUT)?.as_str() {
            "parked" => Waiting::adopt(guest, control, self.waiting.env().clone()),
            other => Err(io::Error::other(format!(
                "it has parked none, but {other:?}"
            ))),
        }
    }

    /// Has it run a program. It comes back to the guest's zygotes when the program has ended.
    pub(super) fn fork(self, order: &Order<'_>, child: &Child<'_>) -> io::Result<Forked> {
        let (gate, opener) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let [stdin, stdout, stderr] = child.streams.map(AsFd::as_fd);
        let descriptors = [stdin, stdout, stderr, gate.as_fd()];
        self.waiting.send(order, &descriptors)?;
        drop(gate);
        let number = self.waiting.line(FORK_TIMEOUT)?;
        let number: u32 = number.parse().map_err(io::Error::other)?;
        is_ours(number, self.waiting.pid())?;
        let pid = i32::try_from(number).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::other("it named no process"))?;
        child.group.add(number)?;
        let ended = pidfd_open(pid, PidfdFlags::empty())?;
        let watch = child.guest.reaper.adopt(number, Arc::clone(child.wake));
        let guest = Arc::clone(child.guest);
        let following = Arc::clone(&watch);
        let workers = guest.workers.clone();
        workers.run(move || self.follow(number, &ended, &following, &guest))?;
        // Only now, when nothing can fail any more: it waits at the gate for this, and ends if the
        // gate is closed.
        rustix::io::write(&opener, b"!")?;
        Ok(Forked { pid, watch })
    }

    /// Waits for the child's end, and asks the kernel how it ended: whatever the program has done to the
    /// zygote, that collects nothing unasked. A zygote that does not collect when it is asked, because
    /// it is stopped or dead, is ended: then the child is an orphan, and the reaper collects it.
    fn follow(self, pid: u32, ended: &OwnedFd, watch: &Arc<Watch>, guest: &Guest) {
        let mut fds = [PollFd::new(ended, PollFlags::IN)];
        while poll(&mut fds, None) == Err(Errno::INTR) {}
        let known = uncollected(pid);
        match self.waiting.collect(COLLECT_TIMEOUT) {
            // Before the end is known: who asks for the next program then finds it.
            Ok(()) => guest.zygotes.put_back(self),
            Err(_) => {
                let zygote = self.waiting.end();
                if known.is_none() {
                    wait_for(&zygote);
                    wait_for(watch);
                }
            }
        }
        // Of one that the reaper has seen, this changes nothing; nobody saw how another one ended.
        let killed = ExitStatus::from_raw(libc::SIGKILL);
        let status = known.unwrap_or(killed);
        guest.reaper.release(pid, watch, status);
    }
}

/// How a process ended that nobody has collected yet.
fn uncollected(pid: u32) -> Option<ExitStatus> {
    exit_status(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Fields 3, the state, and 52, the status as waitpid(2) gives it. Field 2 is a name that may contain
/// anything, so counting starts behind it. Source: proc_pid_stat(5).
fn exit_status(stat: &str) -> Option<ExitStatus> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let is_dead = fields.next()? == "Z";
    let status = fields.nth(48)?.parse().ok()?;
    is_dead.then(|| ExitStatus::from_raw(status))
}

/// Waits until it is known how a process ended, or long enough.
fn wait_for(watch: &Watch) {
    let begun = Instant::now();
    while watch.status().is_none() && begun.elapsed() < ORPHAN_TIMEOUT {
        std::thread::sleep(ORPHAN_POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_a_process_ended_is_known_before_it_is_collected() {
        let ends = |script: &str| {
            let mut child = Command::new("sh").args(["-c", script]).spawn().unwrap();
            let pid = i32::try_from(child.id()).unwrap();
            let ended = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap();
            assert_eq!(uncollected(std::process::id()), None, "we live");
            poll(&mut [PollFd::new(&ended, PollFlags::IN)], None).unwrap();
            let known = uncollected(child.id());
            assert_eq!(known, Some(child.wait().unwrap()));
            assert_eq!(uncollected(child.id()), None, "it is collected");
            known.map(|status| (status.code(), status.signal()))
        };
        assert_eq!(ends("exit 3"), Some((Some(3), None)));
        assert_eq!(ends("kill -TERM $$"), Some((None, Some(15))));
    }

    #[test]
    fn what_is_no_stat_tells_nothing() {
        for text in ["", "1 (a) Z", "1 (a) b) Z 1 2 3"] {
            assert_eq!(exit_status(text), None);
        }
    }
}
