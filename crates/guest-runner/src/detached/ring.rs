//! What a program wrote and nobody has confirmed yet, in a bounded buffer.
//!
//! Positions count bytes from the program's start. What a reader was sent stays until it is
//! confirmed, so that nothing is lost with a session.

use std::collections::VecDeque;

/// Bytes from one position on.
#[derive(Debug, Default)]
pub(super) struct Ring {
    bytes: VecDeque<u8>,
    start: u64,
}

impl Ring {
    /// Adds what the program wrote; the caller keeps to what was freed.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
    }

    /// Position of the oldest byte that is kept.
    pub(super) fn start(&self) -> u64 {
        self.start
    }

    /// Position after the newest byte.
    pub(super) fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    /// At most `most` bytes from `position` on, which is kept or the end.
    pub(super) fn read(&self, position: u64, most: usize) -> Vec<u8> {
        let skipped = usize::try_from(position.saturating_sub(self.start)).unwrap_or(usize::MAX);
        let skipped = skipped.min(self.bytes.len());
        let count = most.min(self.bytes.len() - skipped);
        self.bytes
            .range(skipped..skipped + count)
            .copied()
            .collect()
    }

    /// Forgets what comes before `position`; gives how many bytes that frees.
    pub(super) fn confirm(&mut self, position: u64) -> u32 {
        let freed = position.min(self.end()).saturating_sub(self.start);
        // No more than are kept, which are few.
        self.bytes.drain(..usize::try_from(freed).unwrap_or(0));
        self.start += freed;
        u32::try_from(freed).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_stay_until_they_are_confirmed() {
        let mut ring = Ring::default();
        ring.push(b"hello world");
        assert_eq!(ring.read(0, 5), b"hello");
        assert_eq!(ring.read(6, 100), b"world");
        assert_eq!(ring.confirm(6), 6);
        assert_eq!((ring.start(), ring.end()), (6, 11));
        assert_eq!(ring.read(6, 100), b"world");
        ring.push(b"!");
        assert_eq!(ring.read(8, 100), b"rld!");
        assert_eq!(ring.read(12, 100), b"");
    }

    #[test]
    fn positions_that_are_not_kept_have_no_effect() {
        let mut ring = Ring::default();
        ring.push(b"abc");
        assert_eq!(ring.confirm(2), 2);
        assert_eq!(ring.confirm(1), 0);
        assert_eq!(ring.confirm(100), 1);
        assert_eq!((ring.start(), ring.end()), (3, 3));
        assert_eq!(ring.read(100, 10), b"");
    }
}
