//! Memory of our own whose pages somebody else puts in: what a VMM has, for stand-ins of one and for tests.

use std::io;
use std::ptr;

use super::PAGE_BYTES;

/// Anonymous memory, private to this process. Reading a page that is missing waits for whoever answers.
#[derive(Debug)]
pub struct Memory {
    start: *mut libc::c_void,
    len: usize,
}

// SAFETY: it is memory without an owner thread; reads race with nothing but the kernel, which puts whole pages.
unsafe impl Send for Memory {}
// SAFETY: as above; nothing writes to it through this type.
unsafe impl Sync for Memory {}

impl Memory {
    /// As large as this, in bytes.
    ///
    /// # Errors
    /// If there is not so much, or it is no number of whole pages.
    pub fn new(len: u64) -> io::Result<Memory> {
        let whole = len > 0 && len.is_multiple_of(PAGE_BYTES);
        let len = usize::try_from(len).map_err(io::Error::other)?;
        if !whole {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping where the kernel wants it touches nothing that there is.
        let start = unsafe { libc::mmap(ptr::null_mut(), len, protection, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Memory { start, len })
    }

    /// Where it begins.
    #[must_use]
    pub fn address(&self) -> u64 {
        self.start as u64
    }

    /// Its size in bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "it never is")]
    pub fn len(&self) -> u64 {
        self.len as u64
    }

    /// The eight bytes at `offset`, as a number of this machine's.
    ///
    /// # Panics
    /// If they are not all in it, or not aligned.
    #[must_use]
    pub fn word(&self, offset: u64) -> u64 {
        let at = usize::try_from(offset).expect("addresses have 64 bits");
        assert!(at.is_multiple_of(8) && at <= self.len - 8, "in the memory");
        // SAFETY: the place is in the mapping and aligned. The page may be put in by another process while it is read, so
        // nothing is assumed of it.
        unsafe { ptr::read_volatile(self.start.cast::<u8>().add(at).cast::<u64>()) }
    }

    /// Gives pages back to the kernel, as a balloon does.
    ///
    /// # Errors
    /// If the kernel refuses.
    ///
    /// # Panics
    /// If they are not all in it.
    pub fn give_back(&self, offset: u64, len: u64) -> io::Result<()> {
        let end = offset.checked_add(len).expect("no overflow");
        assert!(end <= self.len(), "in the memory");
        let (offset, len) = (
            usize::try_from(offset).expect("addresses have 64 bits"),
            usize::try_from(len).expect("addresses have 64 bits"),
        );
        // SAFETY: the pages are in the mapping, which nobody has a reference into.
        match unsafe { libc::madvise(self.start.byte_add(offset), len, libc::MADV_DONTNEED) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nobody has a reference into it.
        unsafe { libc::munmap(self.start, self.len) };
    }
}
