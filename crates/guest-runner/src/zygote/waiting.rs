//! An interpreter that has started and waits for an order.

#![expect(
    unsafe_code,
    reason = "a child gives up its rights between fork and exec"
)]

use std::collections::BTreeMap;
use std::io::{self, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::Pid;

use crate::Guest;
use crate::exec;
use crate::reaper::Watch;
use crate::wake::Wake;

/// The interpreter's descriptor of its socket.
const CONTROL: i32 = 3;
/// How long it may take to get ready; emulation is slow.
const START_TIMEOUT: Duration = Duration::from_secs(120);
/// How long it may take to read an order.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest line that it may say.
const MAX_LINE: usize = 32;

/// The process, and the socket to it.
pub(super) struct Waiting {
    pid: u32,
    /// What it was started with.
    env: BTreeMap<String, String>,
    watch: Arc<Watch>,
    control: UnixStream,
    /// It has become a program, and is not ours to end.
    released: bool,
}

impl Waiting {
    /// Starts `command` as the programs' user, and waits until it says that it is ready.
    pub(super) fn start(
        guest: &Guest,
        mut command: Command,
        env: BTreeMap<String, String>,
    ) -> io::Result<Waiting> {
        let (control, theirs) = UnixStream::pair()?;
        let cwd = OwnedFd::from(std::fs::File::open("/")?);
        let procs = guest.zygote_group.procs()?;
        command.env_clear().envs(&env);
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
        let waiting = Waiting {
            pid: child.id(),
            env,
            watch,
            control,
            released: false,
        };
        match waiting.line(START_TIMEOUT)?.as_str() {
            "ready" => Ok(waiting),
            other => Err(io::Error::other(format!("it is not ready, but {other:?}"))),
        }
    }

    pub(super) fn env(&self) -> &BTreeMap<String, String> {
        &self.env
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends an order, with descriptors if it needs some. Its form is described in `python.py`.
    pub(super) fn send(
        &self,
        file: &str,
        args: &[String],
        env: &BTreeMap<String, String>,
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let count = args.len().to_string();
        let env = env.iter().map(|(name, value)| format!("{name}={value}"));
        let words = [file.to_owned(), count]
            .into_iter()
            .chain(args.iter().cloned())
            .chain(env);
        let mut fields = Vec::new();
        for word in words {
            fields.extend_from_slice(word.as_bytes());
            fields.push(0);
        }
        let length = u32::try_from(fields.len()).map_err(io::Error::other)?;
        self.control.set_write_timeout(Some(SEND_TIMEOUT))?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(5))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
        }
        // Four bytes into an empty socket are taken whole.
        let head = length.to_be_bytes();
        let head = [IoSlice::new(&head)];
        sendmsg(&self.control, &head, &mut ancillary, SendFlags::NOSIGNAL)?;
        (&self.control).write_all(&fields)
    }

    /// Its next line.
    pub(super) fn line(&self, timeout: Duration) -> io::Result<String> {
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

    /// Lets go of it: it is a program from now on.
    pub(super) fn release(mut self) -> Arc<Watch> {
        self.released = true;
        Arc::clone(&self.watch)
    }
}

impl Waiting {
    /// Kills it; the reaper collects it.
    pub(super) fn end(self) -> Arc<Watch> {
        Arc::clone(&self.watch)
    }
}

impl Drop for Waiting {
    /// One that failed must not stay; the reaper collects it.
    fn drop(&mut self) {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        if let (Some(pid), None, false) = (pid, self.watch.status(), self.released) {
            // It may be going already.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}
