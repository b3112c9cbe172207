//! Logs of events that are read while they grow, from any number on.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use firelane_model::log::EventLog;
use firelane_wire::event::{End, Event, LogPage, ReadLog};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// Longest that a reader is kept waiting, whatever it asks for.
const MAX_WAIT: Duration = Duration::from_secs(20);
/// Most bytes of a page, whatever the reader asks for; with its frame it fits a message of the Bus.
pub const MAX_PAGE_BYTES: usize = 512 << 10;

/// What happened to one run or exec so far.
pub struct LiveLog {
    events: Mutex<EventLog<Event>>,
    more: Notify,
}

impl LiveLog {
    /// An empty one that keeps the last `max_bytes` of events.
    #[must_use]
    pub fn new(max_bytes: usize) -> LiveLog {
        LiveLog {
            events: Mutex::new(EventLog::new(max_bytes)),
            more: Notify::new(),
        }
    }

    /// Adds an event; nothing, once there was an end.
    pub fn append(&self, event: Event) {
        let last = matches!(event, Event::Ended(_));
        let bytes = event.bytes();
        {
            let mut events = self.lock();
            events.append(event, bytes);
            if last {
                events.finish();
            }
        }
        self.more.notify_waiters();
    }

    /// Adds the end.
    pub fn end(&self, end: End) {
        self.append(Event::Ended(Box::new(end)));
    }

    /// Whether there was an end.
    pub fn has_ended(&self) -> bool {
        self.lock().is_finished()
    }

    /// How many bytes are kept, about.
    pub fn bytes(&self) -> usize {
        self.lock().bytes()
    }

    /// A part of it; waits for one if there is nothing new.
    pub async fn read(&self, read: ReadLog) -> LogPage {
        let deadline = Instant::now() + Duration::from_millis(read.wait_ms).min(MAX_WAIT);
        loop {
            let more = self.more.notified();
            tokio::pin!(more);
            // From here on no event is missed.
            more.as_mut().enable();
            let page = self.page(&read);
            let enough = match read.whole {
                true => page.end || page.full,
                false => page.end || !page.page.events.is_empty() || page.page.gap.is_some(),
            };
            if enough || timeout_at(deadline, more).await.is_err() {
                return page.page;
            }
        }
    }

    fn page(&self, read: &ReadLog) -> Found {
        let max_bytes = usize::try_from(read.max_bytes).unwrap_or(usize::MAX);
        let events = self.lock();
        let page = events.read(read.after, max_bytes.min(MAX_PAGE_BYTES));
        let full = page.read_up_to < events.last();
        Found {
            end: page.end,
            full,
            page: LogPage {
                gap: page.gap,
                end: page.end,
                events: page
                    .events
                    .into_iter()
                    .map(|(number, event)| (number, event.clone()))
                    .collect(),
            },
        }
    }

    fn lock(&self) -> MutexGuard<'_, EventLog<Event>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Found {
    page: LogPage,
    end: bool,
    /// More is there than was asked for.
    full: bool,
}
