//! Serves the faults of one guest, until its VMM ends or it is told to stop.
//!
//! ```text
//!   working set known:   put its blocks, faults in between ──┐
//!   not known: note what is missed, until the guest settles ─┴─> put what is missed
//! ```
//!
//! What the guest gave back is zero from then on, not what the snapshot has.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use firelane_sys::userfault::{Event, PAGE_BYTES, PutError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::handover::Handed;
use super::source::Source;
use super::working_set::{BLOCK_BYTES, Known, MAX_BLOCKS, WorkingSet};
use super::{PagerError, Shared};

/// A guest that has missed nothing for so long while it ran has done its first work.
const SETTLED: Duration = Duration::from_secs(1);
/// Faults that may wait: each is a thread of the VMM that does, and it may not have as many.
const MAX_MISSED: usize = 1024;

/// Why serving ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The owner wants it.
    Stopped,
    /// The VMM has ended, or acts as if it had.
    HungUp,
}

/// Faults for each page, on average, in the life of a microVM: a page that was put stays, and a fault puts sixteen. Our
/// machines have no balloon that would give pages back. A VMM that was taken over could, without end, and this thread is not
/// in its cgroup.
const FAULTS_OF_A_PAGE: u64 = 2;

/// What is missed, in order, while that is worth knowing.
struct Recording {
    set: WorkingSet,
    /// What clones before have missed, which did not settle, and then what this one misses.
    blocks: Vec<u64>,
    known: usize,
    last: Instant,
}

pub(super) struct Server<'a> {
    handed: Handed,
    source: Source,
    shared: &'a Shared,
    /// Faults that were told and not answered yet.
    missed: VecDeque<u64>,
    /// Blocks that are put before they are missed.
    ahead: VecDeque<u64>,
    recording: Option<Recording>,
    /// Pages of the file that were given back.
    removed: Removed,
    buffer: Vec<u8>,
    /// Faults that were answered, and blocks that were put before.
    answered: u64,
    given: u64,
}

impl<'a> Server<'a> {
    pub(super) fn new(
        handed: Handed,
        source: Source,
        set: WorkingSet,
        shared: &'a Arc<Shared>,
    ) -> Server<'a> {
        let known = set.read().unwrap_or_else(|error| {
            tracing::warn!(%error, "a snapshot's working set is not used, and is found out again");
            None
        });
        let known = known.unwrap_or(Known {
            blocks: Vec::new(),
            settled: false,
        });
        let recording = (!known.settled).then(|| Recording {
            set,
            known: known.blocks.len(),
            blocks: known.blocks.clone(),
            last: Instant::now(),
        });
        Server {
            handed,
            source,
            shared,
            missed: VecDeque::new(),
            ahead: known.blocks.into(),
            recording,
            removed: Removed::default(),
            buffer: vec![0; BLOCK_BYTES as usize],
            answered: 0,
            given: 0,
        }
    }

    /// Serves.
    pub(super) fn serve(&mut self, stop: BorrowedFd<'_>) -> Result<End, PagerError> {
        loop {
            if let Some(end) = self.wait(stop)? {
                return Ok(end);
            }
            self.take_events()?;
            let answered = match self.missed.pop_front() {
                Some(address) => self.answer(address),
                None => self.put_ahead(),
            };
            match answered {
                Err(PagerError::Put(PutError::Gone)) => return Ok(End::HungUp),
                answered => answered?,
            }
        }
    }

    /// Waits until there is something to do. Says whether that is to end.
    fn wait(&mut self, stop: BorrowedFd<'_>) -> Result<Option<End>, PagerError> {
        let busy = !self.missed.is_empty() || !self.ahead.is_empty();
        let timeout = match (busy, self.settles_in()) {
            (true, _) => Some(Timespec::default()),
            (false, Some(left)) => Some(Timespec::try_from(left).unwrap_or_default()),
            (false, None) => None,
        };
        let mut fds = [
            PollFd::from_borrowed_fd(stop, PollFlags::IN),
            PollFd::from_borrowed_fd(self.handed.connection.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.handed.faults.as_fd(), PollFlags::IN),
        ];
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(PagerError::step("wait for faults")(errno.into())),
        }
        let [stop, connection, faults] = fds.map(|fd| fd.revents());
        // Whatever comes on the connection is either its end or nothing that a VMM says.
        let end = match (stop.is_empty(), connection.is_empty()) {
            (false, _) => Some(End::Stopped),
            (_, false) => Some(End::HungUp),
            _ if faults.intersects(PollFlags::ERR | PollFlags::NVAL) => {
                return Err(PagerError::Deaf);
            }
            _ => None,
        };
        Ok(end)
    }

    /// How long it is until the guest may have settled; nothing, if that does not matter.
    fn settles_in(&mut self) -> Option<Duration> {
        let recording = self.recording.as_mut()?;
        if self.shared.is_paused() {
            // It misses nothing, and has not done its work for that.
            recording.last = Instant::now();
            return Some(SETTLED);
        }
        let left = (recording.last + SETTLED).saturating_duration_since(Instant::now());
        if left.is_zero() || recording.blocks.len() >= MAX_BLOCKS {
            self.keep_recording(true);
            return None;
        }
        Some(left)
    }

    /// Writes down what is worth it.
    pub(super) fn finish(&mut self) {
        self.keep_recording(false);
        let (answered, given) = (self.answered, self.given);
        tracing::debug!(
            id = self.shared.id,
            answered,
            given,
            "handed out a guest's memory"
        );
    }

    /// Writes down what was missed. It is a loss of time only if that fails.
    fn keep_recording(&mut self, settled: bool) {
        let Some(recording) = self.recording.take() else {
            return;
        };
        if !settled && recording.blocks.len() == recording.known {
            // Nothing that is not on record already.
            return;
        }
        let known = Known {
            blocks: recording.blocks,
            settled,
        };
        if let Err(error) = recording.set.write(&known, &self.shared.id) {
            tracing::warn!(%error, "cannot keep a snapshot's working set");
        }
    }

    /// Reads what happened. Removals count before faults that were told with them: a page that was given back is never
    /// what it was.
    fn take_events(&mut self) -> Result<(), PagerError> {
        let events = self.handed.faults.events();
        for event in events.map_err(PagerError::step("read faults"))? {
            match event {
                Event::Fault { .. } if self.missed.len() >= MAX_MISSED => {
                    return Err(PagerError::Flood);
                }
                Event::Fault { address } => self.missed.push_back(address),
                Event::Removed { start, end } => {
                    for part in self.handed.layout.offsets_of(&(start..end)) {
                        self.removed
                            .add(part.start / PAGE_BYTES..part.end.div_ceil(PAGE_BYTES));
                    }
                }
                Event::Unasked(number) => return Err(PagerError::Unasked(number)),
            }
        }
        Ok(())
    }

    fn answer(&mut self, address: u64) -> Result<(), PagerError> {
        let offset = self.handed.layout.offset_of(address);
        let offset = offset.ok_or(PagerError::Outside { address })?;
        let block = offset / BLOCK_BYTES;
        if let Some(recording) = &mut self.recording {
            recording.last = Instant::now();
            if !recording.blocks.contains(&block) && recording.blocks.len() < MAX_BLOCKS {
                recording.blocks.push(block);
            }
        }
        self.answered += 1;
        if self.answered > FAULTS_OF_A_PAGE * self.handed.layout.pages() + MAX_MISSED as u64 {
            return Err(PagerError::Flood);
        }
        match self.put(block, offset) {
            Err(PagerError::Put(PutError::Changing { .. })) => {
                // What changes is told by an event, which is read before the next try.
                self.missed.push_front(address);
                Ok(())
            }
            put => put,
        }
    }

    fn put_ahead(&mut self) -> Result<(), PagerError> {
        let Some(block) = self.ahead.pop_front() else {
            return Ok(());
        };
        self.given += 1;
        match self.put(block, block * BLOCK_BYTES) {
            // It comes when it is missed.
            Err(PagerError::Put(PutError::Changing { .. })) => Ok(()),
            put => put,
        }
    }

    /// Puts what of a block is in one region with the byte at `offset`.
    fn put(&mut self, block: u64, offset: u64) -> Result<(), PagerError> {
        let block = block * BLOCK_BYTES..(block + 1) * BLOCK_BYTES;
        let Some((piece, address)) = self.handed.layout.piece(&block, offset) else {
            return Ok(());
        };
        let pages = piece.start / PAGE_BYTES..piece.end / PAGE_BYTES;
        if self.removed.has_any(pages) {
            return self.put_page(
                offset,
                address + (offset - piece.start) / PAGE_BYTES * PAGE_BYTES,
            );
        }
        let len = (piece.end - piece.start) as usize;
        self.source.read(piece.start, &mut self.buffer[..len])?;
        let bytes = &self.buffer[..len];
        if is_zero(bytes) {
            self.handed.faults.zero(address, len as u64)?;
        } else {
            self.handed.faults.copy(address, bytes)?;
        }
        Ok(())
    }

    /// Puts one page of a block of which some were given back.
    fn put_page(&mut self, offset: u64, address: u64) -> Result<(), PagerError> {
        let page = offset / PAGE_BYTES;
        if self.removed.has(page) {
            self.handed.faults.zero(address, PAGE_BYTES)?;
            return Ok(());
        }
        let bytes = &mut self.buffer[..PAGE_BYTES as usize];
        self.source.read(page * PAGE_BYTES, bytes)?;
        self.handed.faults.copy(address, bytes)?;
        Ok(())
    }
}

/// Pages of the file, a bit for each up to the last that was added.
#[derive(Debug, Default)]
struct Removed(Vec<u64>);

impl Removed {
    fn add(&mut self, pages: Range<u64>) {
        let words = usize::try_from(pages.end.div_ceil(64)).expect("pages of this machine");
        if self.0.len() < words {
            self.0.resize(words, 0);
        }
        for page in pages {
            let (word, bit) = Removed::place(page);
            self.0[word] |= bit;
        }
    }

    fn has(&self, page: u64) -> bool {
        let (word, bit) = Removed::place(page);
        self.0.get(word).is_some_and(|word| word & bit != 0)
    }

    fn has_any(&self, mut pages: Range<u64>) -> bool {
        !self.0.is_empty() && pages.any(|page| self.has(page))
    }

    fn place(page: u64) -> (usize, u64) {
        let word = usize::try_from(page / 64).expect("pages of this machine");
        (word, 1 << (page % 64))
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<16>();
    words.iter().all(|word| *word == [0; 16]) && rest.iter().all(|byte| *byte == 0)
}
