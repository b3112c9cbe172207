//! What happened in one run, for readers that come, fall behind and come again.
//!
//! Events are numbered from 1. The log holds the newest that fit; a reader says up to which number
//! it has read, and is told what follows and what it has missed. So the writer never waits for a
//! reader, and a reader always knows whether it has seen everything.

use std::collections::VecDeque;

/// What an event takes besides its own bytes, about: empty events take room as well.
pub const OVERHEAD_BYTES: usize = 64;

/// A bounded log of events.
#[derive(Clone, Debug)]
pub struct EventLog<E> {
    max_bytes: usize,
    /// The newest, without a gap, and what each counts.
    kept: VecDeque<(E, usize)>,
    bytes: usize,
    /// The number of the latest event; 0 before the first.
    last: u64,
    finished: bool,
}

/// What follows a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<'a, E> {
    /// Events with their numbers, ascending by one.
    pub events: Vec<(u64, &'a E)>,
    /// First and last number of those that the reader has not seen and that are gone; the events
    /// come after them.
    pub gap: Option<(u64, u64)>,
    /// Where to read on: the number after which nothing has been handed out yet.
    pub read_up_to: u64,
    /// Nothing follows this page, nor ever will.
    pub end: bool,
}

impl<E> EventLog<E> {
    /// An empty log that holds so many bytes; each event counts [`OVERHEAD_BYTES`] on top.
    pub fn new(max_bytes: usize) -> Self {
        Self {
            max_bytes,
            kept: VecDeque::new(),
            bytes: 0,
            last: 0,
            finished: false,
        }
    }

    /// Writes an event of so many bytes and forgets the oldest, as many as are too much; an event
    /// that does not fit in the whole log is forgotten at once. Gives the event's number, or
    /// nothing if the log has been finished.
    pub fn append(&mut self, event: E, bytes: usize) -> Option<u64> {
        if self.finished {
            return None;
        }
        let counts = bytes.saturating_add(OVERHEAD_BYTES);
        self.last += 1;
        while self.bytes > self.max_bytes.saturating_sub(counts) {
            let Some((_, gone)) = self.kept.pop_front() else {
                break;
            };
            self.bytes -= gone;
        }
        if counts <= self.max_bytes {
            self.kept.push_back((event, counts));
            self.bytes += counts;
        }
        Some(self.last)
    }

    /// Nothing will follow.
    pub fn finish(&mut self) {
        self.finished = true;
    }

    /// Whether nothing will follow.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// The number of the latest event; 0 before the first.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// How many bytes are kept, overhead included.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What follows number `after` (0: from the start), up to so many bytes, but at least one event
    /// if there is one. A number that has not been given out yet is followed by nothing so far.
    pub fn read(&self, after: u64, max_bytes: usize) -> Page<'_, E> {
        let first_kept = self.last - self.kept.len() as u64 + 1;
        let gap = (after.saturating_add(1) < first_kept).then(|| (after + 1, first_kept - 1));
        let mut read_up_to = gap.map_or(after, |(_, to)| to);

        let skip = usize::try_from(read_up_to.saturating_add(1) - first_kept).unwrap_or(usize::MAX);
        let (mut events, mut bytes) = (Vec::new(), 0_usize);
        for (event, counts) in self.kept.iter().skip(skip) {
            bytes = bytes.saturating_add(*counts);
            if bytes > max_bytes && !events.is_empty() {
                break;
            }
            read_up_to += 1;
            events.push((read_up_to, event));
        }
        Page {
            events,
            gap,
            read_up_to,
            end: self.finished && read_up_to >= self.last,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Room for so many events of 36 bytes.
    fn log(room: usize, events: u64) -> EventLog<u64> {
        let mut log = EventLog::new(room * 100);
        for event in 1..=events {
            assert_eq!(log.append(event, 36), Some(event));
        }
        log
    }

    fn numbers(page: &Page<'_, u64>) -> Vec<u64> {
        page.events.iter().map(|(number, _)| *number).collect()
    }

    #[test]
    fn a_reader_goes_on_where_it_was() {
        let log = log(10, 5);
        let page = log.read(2, usize::MAX);
        assert_eq!(page.events, [(3, &3), (4, &4), (5, &5)]);
        assert_eq!((page.gap, page.end), (None, false));
        assert_eq!(log.read(page.read_up_to, usize::MAX).events, []);
    }

    #[test]
    fn a_reader_that_fell_behind_learns_what_is_gone() {
        let log = log(3, 10);
        let page = log.read(2, usize::MAX);
        assert_eq!(page.gap, Some((3, 7)));
        assert_eq!(numbers(&page), [8, 9, 10]);
        assert_eq!(log.read(7, usize::MAX).gap, None);
    }

    #[test]
    fn an_event_that_never_fits_is_a_gap() {
        let mut log = log(3, 2);
        assert_eq!(log.append(3, 1_000), Some(3));
        let page = log.read(0, usize::MAX);
        assert_eq!((page.gap, page.read_up_to), (Some((1, 3)), 3));
        // One that fills the log is kept, alone.
        assert_eq!(log.append(4, 36), Some(4));
        assert_eq!(log.append(5, 300 - OVERHEAD_BYTES), Some(5));
        assert_eq!(numbers(&log.read(3, usize::MAX)), [5]);
    }

    #[test]
    fn a_page_is_bounded_but_never_empty_while_something_follows() {
        let log = log(10, 5);
        assert_eq!(numbers(&log.read(0, 250)), [1, 2]);
        assert_eq!(numbers(&log.read(0, 0)), [1]);
    }

    #[test]
    fn the_end_is_told_once_everything_was_read() {
        let mut log = log(10, 3);
        assert!(!log.read(3, usize::MAX).end);
        log.finish();
        assert_eq!(log.append(4, 0), None);
        assert!(!log.read(0, 100).end);
        assert!(log.read(0, usize::MAX).end);
        assert!(log.read(3, usize::MAX).end);
        let mut empty = EventLog::<u64>::new(0);
        assert!(!empty.read(0, 0).end);
        empty.finish();
        assert!(empty.read(0, 0).end);
    }

    #[test]
    fn a_number_from_the_future_is_followed_by_nothing() {
        let page = log(10, 3);
        let page = page.read(u64::MAX, usize::MAX);
        assert_eq!((page.events.len(), page.gap), (0, None));
    }

    proptest! {
        #[test]
        fn every_number_is_read_or_known_to_be_gone(
            max_bytes in 0..2_000_usize,
            steps in prop::collection::vec((0..300_usize, any::<bool>(), 0..500_usize), 0..200),
        ) {
            let mut log = EventLog::new(max_bytes);
            let mut seen = 0;
            for (bytes, read, page) in steps {
                log.append(log.last() + 1, bytes);
                prop_assert!(log.bytes <= max_bytes);
                if !read {
                    continue;
                }
                let page = log.read(seen, page);
                if let Some((from, to)) = page.gap {
                    prop_assert_eq!(from, seen + 1);
                    prop_assert!(to >= from);
                    seen = to;
                }
                for (number, event) in page.events {
                    seen += 1;
                    prop_assert_eq!((number, *event), (seen, seen));
                }
                prop_assert_eq!(page.read_up_to, seen);
            }
            log.finish();
            let page = log.read(seen, usize::MAX);
            prop_assert!(page.end);
            prop_assert_eq!(page.read_up_to, log.last());
        }
    }
}
