//! Hands a file to a VMM that insists on opening it for reading and writing.
//!
//! QEMU opens the file of a guest's memory with `O_RDWR` even where it maps it privately (before
//! 8.2 there is no other way), and a descriptor that can write could spoil the file for all other
//! microVMs. So its opens with exactly these flags are answered from outside: a seccomp filter
//! stops the call, and the owner puts a descriptor of its own choice, read-only or not, in place
//! of the result. The path that the VMM names does not matter and need not exist.
//!
//! ```text
//!   jail                               owner
//!   install filter ── listener ──────> receive
//!   become the VMM
//!   openat(.., O_RDWR) ── stopped ───> answer: this descriptor
//! ```
//!
//! Source: Linux, `Documentation/userspace-api/seccomp_filter.rst` and `seccomp_unotify(2)`;
//! `SECCOMP_ADDFD_FLAG_SEND` needs Linux 5.14.

#![expect(
    unsafe_code,
    reason = "seccomp and descriptor passing have no safe wrapper"
)]

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::{MaybeUninit, offset_of};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// `AUDIT_ARCH_X86_64`. Source: Linux, `include/uapi/linux/audit.h`.
const ARCHITECTURE: u32 = 0xc000_003e;
const LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// In the jail: stops this process's opens from now on, and sends the means to answer them over
/// `channel`, a Unix socket. Needs "no new privileges".
pub(super) fn stop_opens(channel: BorrowedFd<'_>) -> io::Result<()> {
    let listener = install()?;
    let descriptors = [listener.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::Error::other("no space for one descriptor"));
    }
    sendmsg(
        channel,
        &[IoSlice::new(b"!")],
        &mut ancillary,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

/// The filter: `openat` with exactly `O_RDWR` is stopped, everything else goes on.
fn install() -> io::Result<OwnedFd> {
    let load = |offset: usize| statement(LOAD_WORD, u32::try_from(offset).unwrap_or(u32::MAX));
    // The low half of an argument; x86-64 is little-endian. Flags are an int: the kernel ignores
    // the high half.
    let flags = offset_of!(libc::seccomp_data, args) + 2 * size_of::<u64>();
    let open_number = u32::try_from(libc::SYS_openat).map_err(io::Error::other)?;
    let mut program = [
        load(offset_of!(libc::seccomp_data, arch)),
        unless(ARCHITECTURE, 5),
        load(offset_of!(libc::seccomp_data, nr)),
        unless(open_number, 3),
        load(flags),
        unless(libc::O_RDWR.unsigned_abs(), 1),
        statement(RETURN, libc::SECCOMP_RET_USER_NOTIF),
        statement(RETURN, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(io::Error::other)?,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the program and its length live across the call, which copies them.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const program,
        )
    };
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made it for us, to be closed on exec.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn statement(code: u16, k: u32) -> libc::sock_filter {
    libc::sock_filter {
        code,
        jt: 0,
        jf: 0,
        k,
    }
}

/// Goes on if the loaded word is `k`, else passes over `skip` instructions.
fn unless(k: u32, skip: u8) -> libc::sock_filter {
    libc::sock_filter {
        code: JUMP_IF_EQUAL,
        jt: 0,
        jf: skip,
        k,
    }
}

/// The owner's end: answers the opens of one VMM.
#[derive(Debug)]
pub struct Opens(OwnedFd);

impl Opens {
    /// Waits until the jail has sent its end.
    ///
    /// # Errors
    /// If it ended before, or nothing came before `timeout`.
    pub fn receive(channel: BorrowedFd<'_>, timeout: Duration) -> io::Result<Opens> {
        wait(channel, timeout)?;
        let mut byte = [0];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        recvmsg(
            channel,
            &mut [IoSliceMut::new(&mut byte)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        )?;
        let listener = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        listener
            .map(Opens)
            .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// Waits for one open and answers it with a copy of `file`. An open that a signal interrupts is
    /// gone, and is made again by the kernel: then that one is answered.
    ///
    /// # Errors
    /// If the VMM ended before, or opened nothing before `timeout`.
    pub fn answer(&self, file: BorrowedFd<'_>, timeout: Duration) -> io::Result<()> {
        let deadline = Instant::now() + timeout;
        loop {
            wait(
                self.0.as_fd(),
                deadline.saturating_duration_since(Instant::now()),
            )?;
            match self.answer_next(file) {
                // Gone before it was read or answered; or while it was answered.
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => {}
                answered => return answered,
            }
        }
    }

    fn answer_next(&self, file: BorrowedFd<'_>) -> io::Result<()> {
        // SAFETY: a notification is plain data, and the kernel wants it zeroed.
        let mut notice: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        self.ioctl(libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut notice)?;
        let mut answer = libc::seccomp_notif_addfd {
            id: notice.id,
            flags: u32::try_from(libc::SECCOMP_ADDFD_FLAG_SEND).map_err(io::Error::other)?,
            srcfd: file.as_raw_fd().unsigned_abs(),
            newfd: 0,
            newfd_flags: 0,
        };
        self.ioctl(libc::SECCOMP_IOCTL_NOTIF_ADDFD, &raw mut answer)
    }

    fn ioctl<T>(&self, request: libc::Ioctl, argument: *mut T) -> io::Result<()> {
        // SAFETY: callers pass the structure that belongs to the request, and it lives across it.
        match unsafe { libc::ioctl(self.0.as_raw_fd(), request, argument) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }
}

/// Waits until there is something to read; the other end's end is none.
fn wait(fd: BorrowedFd<'_>, timeout: Duration) -> io::Result<()> {
    let timeout = Timespec::try_from(timeout).map_err(io::Error::other)?;
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    loop {
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) if fds[0].revents().contains(PollFlags::IN) => return Ok(()),
            Ok(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    /// A shell whose opens are stopped.
    fn shell(script: &str, channel: &UnixStream) -> Command {
        let mut command = Command::new("python3");
        let channel = channel.as_raw_fd();
        command
            .args(["-c", script])
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        // SAFETY: between fork and exec only system calls are made; the channel is open there.
        unsafe {
            command.pre_exec(move || {
                rustix::thread::set_no_new_privs(true)?;
                stop_opens(BorrowedFd::borrow_raw(channel))
            });
        }
        command
    }

    #[test]
    fn an_open_for_writing_gets_what_the_owner_hands_out() {
        let mut content = tempfile::NamedTempFile::new().unwrap();
        content.write_all(b"handed out\n").unwrap();
        let read_only = File::open(content.path()).unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        // Neither the file nor the right to write to it is there.
        let script = "import ctypes, os\n\
                      fd = ctypes.CDLL(None).open(b'/nowhere', os.O_RDWR)\n\
                      print(os.read(fd, 100))\n\
                      try: os.write(fd, b'x')\n\
                      except OSError as error: print(error.errno)";
        let mut command = shell(script, &theirs);
        let child = std::thread::spawn(move || command.output().unwrap());
        let opens = Opens::receive(ours.as_fd(), MINUTE).unwrap();
        opens.answer(read_only.as_fd(), MINUTE).unwrap();
        let output = child.join().unwrap();
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            "b'handed out\\n'\n9\n"
        );
        let mut after = String::new();
        File::open(content.path())
            .unwrap()
            .read_to_string(&mut after)
            .unwrap();
        assert_eq!(after, "handed out\n");
    }

    #[test]
    fn an_open_that_signals_interrupt_is_answered_when_it_is_made_again() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        // The kernel makes the call again after each signal, as a new one to its owner.
        let script = "import ctypes, os, signal\n\
                      signal.signal(signal.SIGALRM, lambda *_: None)\n\
                      signal.siginterrupt(signal.SIGALRM, False)\n\
                      signal.setitimer(signal.ITIMER_REAL, 5e-5, 5e-5)\n\
                      fd = ctypes.CDLL(None).open(b'/nowhere', os.O_RDWR)\n\
                      signal.setitimer(signal.ITIMER_REAL, 0)\n\
                      print(os.read(fd, 100))";
        let mut content = tempfile::NamedTempFile::new().unwrap();
        content.write_all(b"handed out\n").unwrap();
        let mut command = shell(script, &theirs);
        let child = std::thread::spawn(move || command.output().unwrap());
        let opens = Opens::receive(ours.as_fd(), MINUTE).unwrap();
        let file = File::open(content.path()).unwrap();
        opens.answer(file.as_fd(), MINUTE).unwrap();
        let output = child.join().unwrap();
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            "b'handed out\\n'\n"
        );
    }

    #[test]
    fn a_program_that_opens_nothing_is_not_waited_for() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut command = shell("", &theirs);
        let child = std::thread::spawn(move || command.status().unwrap());
        let opens = Opens::receive(ours.as_fd(), MINUTE).unwrap();
        assert!(child.join().unwrap().success());
        let error = opens.answer(ours.as_fd(), MINUTE).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
