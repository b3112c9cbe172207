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

use firelane_guest_proto::Lang;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::Pid;

use super::Order;
use crate::Guest;
use crate::exec::{self, USER_ID};
use crate::reaper::Watch;
use crate::seccomp::Filter;
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
    /// Starts `command`, an interpreter of `lang`, as the programs' user and behind their filter, and waits until it says that it is ready. `env` is the part
    /// of its environment that its program finds.
    pub(super) fn start(
        guest: &Guest,
        lang: Lang,
        command: &mut Command,
        env: BTreeMap<String, String>,
    ) -> io::Result<Waiting> {
        let (control, theirs) = pair()?;
        let cwd = OwnedFd::from(std::fs::File::open("/")?);
        let procs = guest.zygote_group.procs()?;
        let theirs_fd = theirs.as_raw_fd();
        let filter = Filter::of(guest.tier, Some(lang));
        // SAFETY: between fork and exec only system calls on prepared descriptors are made. The
        // socket is at its number, or is put there, and stays open across the exec.
        unsafe {
            command.pre_exec(move || {
                exec::confine(&procs, &cwd, false, filter)?;
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
        let (child, watch) = guest.reaper.spawn(command, Arc::new(Wake::new()?))?;
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

    /// A child of another one, which it has let go of: it waits at the other end of `control`.
    pub(super) fn adopt(
        guest: &Guest,
        control: UnixStream,
        env: BTreeMap<String, String>,
    ) -> io::Result<Waiting> {
        control.set_read_timeout(Some(START_TIMEOUT))?;
        let pid: u32 = read_line(&control)?.parse().map_err(io::Error::other)?;
        // Watched first: what is still there afterwards cannot have ended unseen.
        let watch = guest.reaper.adopt(pid, Arc::new(Wake::new()?));
        is_ours(pid, std::process::id())?;
        Ok(Waiting {
            pid,
            env,
            watch,
            control,
            released: false,
        })
    }

    /// Sends the order of a program, with descriptors if it needs some. Its form is described in
    /// `python.py`.
    pub(super) fn send(&self, order: &Order<'_>, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let count = (order.args.len() + 1).to_string();
        let words = [order.file.to_owned(), count, order.folder.to_owned()]
            .into_iter()
            .chain(order.args.iter().cloned())
            .chain(changes(&self.env, order.env));
        self.send_fields(words, descriptors)
    }

    /// Sends a shell the order of its program. Its form is described in `bash.sh`.
    pub(super) fn send_to_shell(&self, order: &Order<'_>) -> io::Result<()> {
        let uname = rustix::system::uname();
        let host = uname.nodename().to_string_lossy().into_owned();
        let words = [order.folder.to_owned(), host]
            .into_iter()
            .chain(changes(&self.env, order.env))
            .chain([String::new()]);
        (&self.control).write_all(&fields(words))
    }

    /// Asks for a child that waits as it does itself.
    pub(super) fn ask_for_child(&self, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.send_fields([String::new(), "0".into()], descriptors)
    }

    fn send_fields(
        &self,
        words: impl IntoIterator<Item = String>,
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let fields = fields(words);
        let length = u32::try_from(fields.len()).map_err(io::Error::other)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
        }
        let head = length.to_be_bytes();
        let parts = [IoSlice::new(&head), IoSlice::new(&fields)];
        let sent = sendmsg(&self.control, &parts, &mut ancillary, SendFlags::NOSIGNAL)?;
        // The head fits into an empty socket.
        let rest = sent
            .checked_sub(head.len())
            .and_then(|sent| fields.get(sent..));
        let rest = rest.ok_or_else(|| io::Error::other("it takes no orders"))?;
        (&self.control).write_all(rest)
    }

    /// Has it collect its child, which has ended.
    pub(super) fn collect(&self, timeout: Duration) -> io::Result<()> {
        (&self.control).write_all(b"!")?;
        match self.line(timeout)?.as_str() {
            "collected" => Ok(()),
            other => Err(io::Error::other(format!(
                "it has collected nothing, but {other:?}"
            ))),
        }
    }

    /// Its next line.
    pub(super) fn line(&self, timeout: Duration) -> io::Result<String> {
        self.control.set_read_timeout(Some(timeout))?;
        read_line(&self.control)
    }

    /// Lets go of it: it is a program from now on.
    pub(super) fn release(mut self) -> Arc<Watch> {
        self.released = true;
        Arc::clone(&self.watch)
    }

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

/// A pair of sockets; ours does not wait for ever to send.
pub(super) fn pair() -> io::Result<(UnixStream, UnixStream)> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_write_timeout(Some(SEND_TIMEOUT))?;
    Ok((ours, theirs))
}

/// Words, each with a NUL at its end.
fn fields(words: impl IntoIterator<Item = String>) -> Vec<u8> {
    let mut fields = Vec::new();
    for word in words {
        fields.extend_from_slice(word.as_bytes());
        fields.push(0);
    }
    fields
}

/// What makes `wanted` of the environment `here`: `NAME=VALUE` sets a variable, `NAME` removes one.
fn changes<'a>(
    here: &'a BTreeMap<String, String>,
    wanted: &'a BTreeMap<String, String>,
) -> impl Iterator<Item = String> + 'a {
    let gone = here.keys().filter(|name| !wanted.contains_key(*name));
    let set = wanted
        .iter()
        .filter(|(name, value)| here.get(*name) != Some(value))
        .map(|(name, value)| format!("{name}={value}"));
    gone.cloned().chain(set)
}

fn read_line(mut control: &UnixStream) -> io::Result<String> {
    let mut line = String::new();
    let mut byte = [0];
    loop {
        control.read_exact(&mut byte)?;
        match byte[0] {
            b'\n' => return Ok(line),
            _ if line.len() == MAX_LINE => return Err(io::Error::other("a line without end")),
            other => line.push(char::from(other)),
        }
    }
}

/// Checks that a process that an interpreter named is a child of `parent` and the programs' user's, and
/// no process that somebody would like to have ended.
pub(super) fn is_ours(pid: u32, parent: u32) -> io::Result<()> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|value| value.split_ascii_whitespace().next()?.parse::<u32>().ok())
    };
    if field("PPid:") == Some(parent) && field("Uid:") == Some(USER_ID) {
        Ok(())
    } else {
        Err(io::Error::other(format!("{pid} is not its child")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
        pairs
            .map(|(name, value)| (name.into(), value.into()))
            .into()
    }

    #[test]
    fn only_what_differs_is_changed() {
        let here = env([("SAME", "1"), ("OTHER", "1"), ("GONE", "1")]);
        let wanted = env([("SAME", "1"), ("OTHER", ""), ("NEW", "a=b")]);
        let mut changes: Vec<String> = changes(&here, &wanted).collect();
        changes.sort();
        assert_eq!(changes, ["GONE", "NEW=a=b", "OTHER="]);
    }
}
