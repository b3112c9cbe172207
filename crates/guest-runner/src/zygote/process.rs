//! One zygote: starting it, and having it fork.

#![expect(
    unsafe_code,
    reason = "a child gives up its rights between fork and exec"
)]

use std::io::{self, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use firelane_guest_proto::Lang;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::Pid;

use super::Order;
use crate::Guest;
use crate::cgroup::Cgroup;
use crate::exec::{self, USER_ID};
use crate::reaper::Watch;
use crate::wake::Wake;

/// The zygote's descriptor of its socket.
const CONTROL: i32 = 3;
/// How long a zygote may take to get ready; emulation is slow.
const START_TIMEOUT: Duration = Duration::from_secs(120);
/// How long it may take to fork.
const FORK_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest line that it may say.
const MAX_LINE: usize = 32;

/// An interpreter that waits.
pub(crate) struct Zygote {
    lang: Lang,
    pid: u32,
    watch: Arc<Watch>,
    control: UnixStream,
}

/// What the child of a zygote gets, and where it goes.
pub(crate) struct Child<'a> {
    pub(crate) guest: &'a Arc<Guest>,
    pub(crate) group: &'a Cgroup,
    pub(crate) wake: &'a Arc<Wake>,
    /// Its standard streams.
    pub(crate) streams: [&'a OwnedFd; 3],
    /// Its working directory.
    pub(crate) cwd: &'a OwnedFd,
}

/// A child that runs.
pub(crate) struct Forked {
    pub(crate) pid: Pid,
    pub(crate) watch: Arc<Watch>,
}

/// The program of a language's zygote, and the interpreter's words before it.
fn program(lang: Lang) -> Option<(&'static [&'static str], &'static str)> {
    match lang {
        Lang::Python => Some((&["-c"], include_str!("python.py"))),
        Lang::Bash | Lang::Node | Lang::Ruby | Lang::Rust => None,
    }
}

impl Zygote {
    pub(super) fn start(
        guest: &Guest,
        lang: Lang,
        snippets: &[String],
    ) -> io::Result<Option<Zygote>> {
        let Some((words, source)) = program(lang) else {
            return Ok(None);
        };
        let Some(interpreter) = exec::interpreter(lang) else {
            return Ok(None);
        };
        let (control, theirs) = UnixStream::pair()?;
        let cwd = OwnedFd::from(std::fs::File::open("/")?);
        let procs = guest.zygote_group.procs()?;
        let mut command = Command::new(interpreter);
        command
            .args(words)
            .arg(source)
            .args(snippets)
            .env_clear()
            .envs(exec::base_environment())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let theirs_fd = theirs.as_raw_fd();
        // SAFETY: between fork and exec only system calls on prepared descriptors are made. The
        // socket is at its number, or is put there, and stays open across the exec.
        unsafe {
            command.pre_exec(move || {
                exec::confine(&procs, &cwd, false)?;
                let placed = if theirs_fd == CONTROL {
                    libc::fcntl(CONTROL, libc::F_SETFD, 0)
                } else {
                    libc::dup2(theirs_fd, CONTROL)
                };
                match placed {
                    -1 => Err(io::Error::last_os_error()),
                    _ => Ok(()),
                }
            });
        }
        let (child, watch) = guest.reaper.spawn(&mut command, Arc::new(Wake::new()?))?;
        drop(theirs);
        let zygote = Zygote {
            lang,
            pid: child.id(),
            watch,
            control,
        };
        match zygote.line(START_TIMEOUT)?.as_str() {
            "ready" => Ok(Some(zygote)),
            other => Err(io::Error::other(format!("it is not ready, but {other:?}"))),
        }
    }

    pub(super) fn lang(&self) -> Lang {
        self.lang
    }

    /// Has it run a program. It comes back to the guest's zygotes when the program has ended.
    pub(super) fn fork(self, order: &Order<'_>, child: &Child<'_>) -> io::Result<Forked> {
        let (gate, opener) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let [stdin, stdout, stderr] = child.streams.map(AsFd::as_fd);
        self.send(
            order,
            &[stdin, stdout, stderr, child.cwd.as_fd(), gate.as_fd()],
        )?;
        drop(gate);
        let pid = self.line(FORK_TIMEOUT)?;
        let pid: u32 = pid.parse().map_err(io::Error::other)?;
        self.check(pid)?;
        child.group.add(pid)?;
        let watch = child.guest.reaper.adopt(pid, Arc::clone(child.wake));
        // It waits there for this, whatever it is told after.
        rustix::io::write(&opener, b"!")?;
        let guest = Arc::clone(child.guest);
        let following = Arc::clone(&watch);
        std::thread::Builder::new()
            .name(format!("zygote-{pid}"))
            .spawn(move || self.follow(pid, &following, &guest))?;
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        Ok(Forked {
            pid: pid.ok_or_else(|| io::Error::other("it named no process"))?,
            watch,
        })
    }

    fn send(
        &self,
        order: &Order<'_>,
        descriptors: &[std::os::fd::BorrowedFd<'_>],
    ) -> io::Result<()> {
        let count = order.args.len().to_string();
        let env = order
            .env
            .iter()
            .map(|(name, value)| format!("{name}={value}"));
        let words = [order.file.to_owned(), count]
            .into_iter()
            .chain(order.args.iter().cloned())
            .chain(env);
        let mut fields = Vec::new();
        for word in words {
            fields.extend_from_slice(word.as_bytes());
            fields.push(0);
        }
        let length = u32::try_from(fields.len()).map_err(io::Error::other)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(5))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
        self.control.set_write_timeout(Some(FORK_TIMEOUT))?;
        let head = length.to_be_bytes();
        sendmsg(
            &self.control,
            &[IoSlice::new(&head)],
            &mut ancillary,
            SendFlags::NOSIGNAL,
        )?;
        (&self.control).write_all(&fields)
    }

    /// A child of this zygote, and no process that somebody would like to have ended.
    fn check(&self, pid: u32) -> io::Result<()> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|value| value.split_ascii_whitespace().next()?.parse::<u32>().ok())
        };
        let ours = field("PPid:") == Some(self.pid) && field("Uid:") == Some(USER_ID);
        if ours {
            Ok(())
        } else {
            Err(io::Error::other(format!("{pid} is not its child")))
        }
    }

    /// Waits for the child's end. If the zygote ends before, the child is an orphan, and the reaper
    /// collects it.
    fn follow(self, pid: u32, watch: &Arc<Watch>, guest: &Guest) {
        let status = self
            .control
            .set_read_timeout(None)
            .and_then(|()| self.read_line());
        if let Ok(Ok(status)) = status.map(|line| line.parse::<i32>()) {
            guest
                .reaper
                .release(pid, watch, ExitStatus::from_raw(status));
            guest.zygotes.put_back(self);
        } else if !std::path::Path::new(&format!("/proc/{pid}")).exists() {
            // It ended before it was adopted, and nobody saw how.
            guest
                .reaper
                .release(pid, watch, ExitStatus::from_raw(libc::SIGKILL));
        }
    }

    fn line(&self, timeout: Duration) -> io::Result<String> {
        self.control.set_read_timeout(Some(timeout))?;
        self.read_line()
    }

    fn read_line(&self) -> io::Result<String> {
        let mut line = String::new();
        let mut byte = [0];
        loop {
            (&self.control).read_exact(&mut byte)?;
            match byte[0] {
                b'\n' => return Ok(line),
                _ if line.len() == MAX_LINE => return Err(io::Error::other("a line without end")),
                other => line.push(char::from(other)),
            }
        }
    }
}

impl Drop for Zygote {
    /// One that failed must not stay; the guest-runner collects it.
    fn drop(&mut self) {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        if let (Some(pid), None) = (pid, self.watch.status()) {
            // It may be going already.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}
