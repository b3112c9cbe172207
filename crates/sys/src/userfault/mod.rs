//! Page faults that another process answers: Linux's userfaultfd.
//!
//! Whoever has memory registers it with a descriptor and passes that on; whoever gets it reads events from
//! it, and puts pages where they are missed.
//!
//! ```text
//!   memory's owner                          whoever answers
//!   make, register ── descriptor ─────────> received
//!   touches a page that is missing, waits ─> events: Fault
//!   goes on <────────────────────────────── copy, zero
//! ```
//!
//! The descriptor comes from a process that is not trusted. It names memory of that process only, so nothing of
//! ours can be written through it; but what is no userfaultfd is refused, no read waits, and events that
//! nobody asked for are told as such.
//!
//! Source: Linux, `include/uapi/linux/userfaultfd.h` and `Documentation/admin-guide/mm/userfaultfd.rst`;
//! ioctl_userfaultfd(2).

#![expect(unsafe_code, reason = "userfaultfd is driven by ioctls")]

mod memory;

use std::fs::{self, File};
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::{Errno, ReadWriteFlags, preadv2, read};

pub use memory::Memory;

/// Size of the pages that are handled here, in bytes.
pub const PAGE_BYTES: u64 = 4096;
/// `UFFD_API`: the only version there is.
const API: u64 = 0xaa;
/// `UFFD_FEATURE_EVENT_REMOVE`.
const EVENT_REMOVE: u64 = 1 << 3;
/// `UFFD_USER_MODE_ONLY`, since Linux 5.11: what everybody may make.
const USER_MODE_ONLY: i32 = 1;
/// `UFFDIO_REGISTER_MODE_MISSING`.
const MISSING: u64 = 1;

/// `UFFD_EVENT_PAGEFAULT` and its siblings.
const PAGEFAULT: u8 = 0x12;
const FORK: u8 = 0x13;
const REMOVE: u8 = 0x15;
/// Size of `struct uffd_msg`.
const MESSAGE_BYTES: usize = 32;
/// Events that are read at once.
const BATCH: usize = 16;

/// What a link in `/proc/self/fd` says of a userfaultfd.
const NAME: &str = "anon_inode:[userfaultfd]";

const READ: libc::c_ulong = 2;
const READ_WRITE: libc::c_ulong = 3;

/// The number of a request. Source: Linux, `include/uapi/asm-generic/ioctl.h`.
const fn request<T>(direction: libc::c_ulong, number: libc::c_ulong) -> libc::c_ulong {
    direction << 30 | (size_of::<T>() as libc::c_ulong) << 16 | (API as libc::c_ulong) << 8 | number
}

const IO_API: libc::c_ulong = request::<Handshake>(READ_WRITE, 0x3f);
const IO_REGISTER: libc::c_ulong = request::<Register>(READ_WRITE, 0);
const IO_WAKE: libc::c_ulong = request::<Span>(READ, 2);
const IO_COPY: libc::c_ulong = request::<CopyIn>(READ_WRITE, 3);
const IO_ZEROPAGE: libc::c_ulong = request::<ZeroIn>(READ_WRITE, 4);

/// `struct uffdio_api`.
#[repr(C)]
struct Handshake {
    api: u64,
    features: u64,
    ioctls: u64,
}

/// `struct uffdio_range`.
#[repr(C)]
struct Span {
    start: u64,
    len: u64,
}

/// `struct uffdio_register`.
#[repr(C)]
struct Register {
    range: Span,
    mode: u64,
    ioctls: u64,
}

/// `struct uffdio_copy`.
#[repr(C)]
struct CopyIn {
    to: u64,
    from: u64,
    len: u64,
    mode: u64,
    copied: i64,
}

/// `struct uffdio_zeropage`.
#[repr(C)]
struct ZeroIn {
    range: Span,
    mode: u64,
    zeroed: i64,
}

/// Whether a VMM that we start could make a descriptor that the kernel tells its own faults too, KVM's among them: the
/// device is there, and open to us, who pass it on to a VMM in a jail; or everybody may. Source: Linux,
/// `Documentation/admin-guide/mm/userfaultfd.rst`, "Creating a userfaultfd".
#[must_use]
pub fn is_there() -> bool {
    let device = File::options()
        .read(true)
        .write(true)
        .open("/dev/userfaultfd");
    let everybody = fs::read_to_string("/proc/sys/vm/unprivileged_userfaultfd");
    device.is_ok() || everybody.is_ok_and(|everybody| everybody.trim() == "1")
}

/// What happened to the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A page is missed; whoever touched it waits.
    Fault {
        /// The page's address.
        address: u64,
    },
    /// Pages were given back. They are zero from now on.
    Removed {
        /// First address.
        start: u64,
        /// The one after the last.
        end: u64,
    },
    /// Something that nobody asked to be told: by this number of the kernel's.
    Unasked(u8),
}

/// Pages could not be put into the memory.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// The memory changes just now: read the events and try again from here.
    #[error("the memory changes")]
    Changing {
        /// Bytes that were put, or were there already.
        done: u64,
    },
    /// The process that had the memory has ended.
    #[error("the process has ended")]
    Gone,
    /// The kernel refused.
    #[error("the kernel refused to put a page at {address:#x}")]
    Refused {
        /// Where.
        address: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The descriptor.
#[derive(Debug)]
pub struct Userfault(OwnedFd);

impl Userfault {
    /// A descriptor for memory of this process, which is told of removals too. Faults that the kernel makes on
    /// behalf of a program, in system calls, are not answered: for these, rights are needed.
    ///
    /// # Errors
    /// If the kernel has none, or forbids it.
    pub fn make() -> io::Result<Userfault> {
        let flags = libc::O_CLOEXEC | libc::O_NONBLOCK | USER_MODE_ONLY;
        // SAFETY: the call takes flags only.
        let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, flags) };
        let fd = i32::try_from(fd).map_err(io::Error::other)?;
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made it for us.
        let made = Userfault(unsafe { OwnedFd::from_raw_fd(fd) });
        let mut handshake = Handshake {
            api: API,
            features: EVENT_REMOVE,
            ioctls: 0,
        };
        made.ioctl(IO_API, &mut handshake)?;
        Ok(made)
    }

    /// Takes over a descriptor that another process has made and registered its memory with.
    ///
    /// # Errors
    /// If it is something else.
    pub fn received(fd: OwnedFd) -> io::Result<Userfault> {
        let link = fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
        if link.as_os_str() != NAME {
            return Err(io::Error::other(format!(
                "it is no userfaultfd, but {}",
                link.display()
            )));
        }
        Ok(Userfault(fd))
    }

    /// Has faults on this memory told here. `Memory` is unmapped before the descriptor could be of harm: a page
    /// that is missed and never put is waited for until both are gone.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn register(&self, memory: &Memory) -> io::Result<()> {
        let mut register = Register {
            range: Span {
                start: memory.address(),
                len: memory.len(),
            },
            mode: MISSING,
            ioctls: 0,
        };
        self.ioctl(IO_REGISTER, &mut register)
    }

    /// Reads what has happened, without waiting.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn events(&self) -> io::Result<Vec<Event>> {
        let mut bytes = [0; BATCH * MESSAGE_BYTES];
        let count = match self.read(&mut bytes) {
            Ok(count) => count,
            Err(Errno::AGAIN | Errno::INTR) => 0,
            Err(errno) => return Err(errno.into()),
        };
        let (messages, _) = bytes[..count].as_chunks();
        Ok(messages.iter().map(event).collect())
    }

    /// Never waits, whatever flags whoever made the descriptor has set or sets meanwhile. Where the kernel cannot
    /// promise that (before 6.10), they are looked at first.
    fn read(&self, bytes: &mut [u8]) -> Result<usize, Errno> {
        /// Where a file that has no position is read.
        const NOWHERE: u64 = u64::MAX;
        let mut into = [IoSliceMut::new(bytes)];
        match preadv2(&self.0, &mut into, NOWHERE, ReadWriteFlags::NOWAIT) {
            Err(Errno::OPNOTSUPP | Errno::SPIPE | Errno::INVAL | Errno::NOSYS) => {}
            read => return read,
        }
        let flags = fcntl_getfl(&self.0)?;
        if !flags.contains(OFlags::NONBLOCK) {
            fcntl_setfl(&self.0, flags | OFlags::NONBLOCK)?;
        }
        read(&self.0, bytes)
    }

    /// Puts these pages where they are missed, from the address `to`, and wakes who waits for them. A page that is
    /// there already stays as it is.
    ///
    /// # Errors
    /// [`PutError`].
    pub fn copy(&self, to: u64, pages: &[u8]) -> Result<(), PutError> {
        self.put(to, pages.len() as u64, |done| {
            let rest = &pages[usize::try_from(done).unwrap_or(pages.len())..];
            let mut copy = CopyIn {
                to: to + done,
                from: rest.as_ptr() as u64,
                len: rest.len() as u64,
                mode: 0,
                copied: 0,
            };
            let put = self.ioctl(IO_COPY, &mut copy);
            (put, copy.copied)
        })
    }

    /// The same with pages of zeros, which take no memory until they are written to.
    ///
    /// # Errors
    /// [`PutError`].
    pub fn zero(&self, to: u64, len: u64) -> Result<(), PutError> {
        self.put(to, len, |done| {
            let mut zero = ZeroIn {
                range: Span {
                    start: to + done,
                    len: len - done,
                },
                mode: 0,
                zeroed: 0,
            };
            let put = self.ioctl(IO_ZEROPAGE, &mut zero);
            (put, zero.zeroed)
        })
    }

    /// Puts `len` bytes of pages by `ioctl`, which begins where it is told and says how far it came.
    fn put(
        &self,
        to: u64,
        len: u64,
        ioctl: impl Fn(u64) -> (io::Result<()>, i64),
    ) -> Result<(), PutError> {
        let mut done = 0;
        while done < len {
            let (put, came) = ioctl(done);
            let Err(error) = put else {
                return Ok(());
            };
            match (u64::try_from(came), error.raw_os_error()) {
                (Ok(came), _) if came > 0 => done += came,
                (_, Some(libc::EEXIST)) => {
                    // Whoever has just begun to wait for it shall not wait any more.
                    self.wake(to + done, PAGE_BYTES)?;
                    done += PAGE_BYTES;
                }
                (_, Some(libc::EAGAIN)) => return Err(PutError::Changing { done }),
                (_, Some(libc::ESRCH)) => return Err(PutError::Gone),
                _ => {
                    return Err(PutError::Refused {
                        address: to + done,
                        source: error,
                    });
                }
            }
        }
        Ok(())
    }

    fn wake(&self, start: u64, len: u64) -> Result<(), PutError> {
        let mut span = Span { start, len };
        self.ioctl(IO_WAKE, &mut span)
            .map_err(|source| PutError::Refused {
                address: start,
                source,
            })
    }

    fn ioctl<T>(&self, request: libc::c_ulong, argument: &mut T) -> io::Result<()> {
        // SAFETY: callers pass the structure that belongs to the request, and it lives across it. A copy reads from a
        // slice that its caller holds, and writes only to pages that are missing in memory that was registered.
        match unsafe { libc::ioctl(self.0.as_raw_fd(), request, &raw mut *argument) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }
}

impl AsFd for Userfault {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// One message: `struct uffd_msg`.
fn event(message: &[u8; MESSAGE_BYTES]) -> Event {
    let word = |at: usize| {
        let bytes = message[at..at + 8].try_into().expect("eight bytes");
        u64::from_ne_bytes(bytes)
    };
    match message[0] {
        PAGEFAULT => Event::Fault {
            address: word(16) & !(PAGE_BYTES - 1),
        },
        REMOVE => Event::Removed {
            start: word(8),
            end: word(16),
        },
        FORK => {
            let fd = message[8..12].try_into().expect("four bytes");
            // SAFETY: with this event the kernel has put a new descriptor into our table, and nobody knows of it but us.
            drop(unsafe { OwnedFd::from_raw_fd(i32::from_ne_bytes(fd)) });
            Event::Unasked(FORK)
        }
        other => Event::Unasked(other),
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use rustix::event::{PollFd, PollFlags, poll};

    use super::*;

    const PAGES: u64 = 8;
    const PAGE: usize = PAGE_BYTES as usize;

    fn registered() -> (Userfault, Memory) {
        let memory = Memory::new(PAGES * PAGE_BYTES).unwrap();
        let ours = Userfault::make().unwrap();
        ours.register(&memory).unwrap();
        (ours, memory)
    }

    /// Waits for events.
    fn next(ours: &Userfault) -> Vec<Event> {
        loop {
            let mut fds = [PollFd::new(ours, PollFlags::IN)];
            poll(&mut fds, None).unwrap();
            let events = ours.events().unwrap();
            if !events.is_empty() {
                return events;
            }
        }
    }

    #[test]
    fn a_page_that_is_missed_is_told_and_waited_for() {
        let (ours, memory) = registered();
        assert_eq!(ours.events().unwrap(), []);
        thread::scope(|scope| {
            let reader = scope.spawn(|| memory.word(3 * PAGE_BYTES + 8));
            let address = memory.address() + 3 * PAGE_BYTES;
            assert_eq!(next(&ours), [Event::Fault { address }]);
            ours.copy(address, &[7; PAGE]).unwrap();
            assert_eq!(reader.join().unwrap(), 0x0707_0707_0707_0707);
        });
    }

    #[test]
    fn pages_that_are_there_stay_and_the_others_come() {
        let (ours, memory) = registered();
        ours.copy(memory.address() + 2 * PAGE_BYTES, &[1; PAGE])
            .unwrap();
        ours.zero(memory.address() + 5 * PAGE_BYTES, PAGE_BYTES)
            .unwrap();
        ours.copy(memory.address(), &[2; PAGES as usize * PAGE])
            .unwrap();
        let found: Vec<u64> = (0..PAGES)
            .map(|page| memory.word(page * PAGE_BYTES) & 0xff)
            .collect();
        assert_eq!(found, [2, 2, 1, 2, 2, 0, 2, 2]);
        // All are there, so nothing is missed.
        assert_eq!(ours.events().unwrap(), []);
    }

    #[test]
    fn what_is_given_back_is_told_and_missed_again() {
        let (ours, memory) = registered();
        ours.zero(memory.address(), PAGES * PAGE_BYTES).unwrap();
        thread::scope(|scope| {
            // It waits until the event was read.
            let remover = scope.spawn(|| memory.give_back(PAGE_BYTES, 2 * PAGE_BYTES));
            let (start, end) = (
                memory.address() + PAGE_BYTES,
                memory.address() + 3 * PAGE_BYTES,
            );
            assert_eq!(next(&ours), [Event::Removed { start, end }]);
            remover.join().unwrap().unwrap();
            let reader = scope.spawn(|| memory.word(2 * PAGE_BYTES));
            let address = memory.address() + 2 * PAGE_BYTES;
            assert_eq!(next(&ours), [Event::Fault { address }]);
            ours.zero(address, PAGE_BYTES).unwrap();
            assert_eq!(reader.join().unwrap(), 0);
        });
    }

    #[test]
    fn a_read_does_not_wait_even_if_the_descriptor_would() {
        let (ours, _memory) = registered();
        let flags = fcntl_getfl(&ours).unwrap();
        fcntl_setfl(&ours, flags - OFlags::NONBLOCK).unwrap();
        assert_eq!(ours.events().unwrap(), []);
    }

    #[test]
    fn another_descriptor_is_refused() {
        let file = File::open("/dev/null").unwrap();
        let error = Userfault::received(file.into()).unwrap_err();
        assert!(error.to_string().contains("/dev/null"), "{error}");
        let (ours, _memory) = registered();
        Userfault::received(ours.0).unwrap();
    }

    #[test]
    fn a_place_that_is_not_registered_is_refused() {
        let (ours, memory) = registered();
        let beyond = memory.address() + memory.len();
        let other = Memory::new(PAGE_BYTES).unwrap();
        for address in [beyond & !0xfff, other.address()] {
            let error = ours.copy(address, &[0; PAGE]).unwrap_err();
            assert!(matches!(error, PutError::Refused { .. }), "{error:?}");
        }
    }
}
