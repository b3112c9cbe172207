//! The durable brain: which run is next, which host gets it, what became of it, who may ask.
//!
//! ```text
//!   submit ─▶ queue ─▶ a host with a free slot ─▶ follow its log ─▶ record
//!                └─ cancelled, expired ────────────────────────────▶ ┘
//! ```
//!
//! Sandboxes have no queue: a host makes one at once, or it is refused.
//!
//! It talks to gateways and agents over the Bus, and never to a guest. What must survive is in the
//! database before anybody is told of it.
//!
//! | Module | Does |
//! | --- | --- |
//! | [`Coordinator`] | holds the state, answers over the Bus |
//! | `runs` | the life of a run: submit, read, send, cancel |
//! | `room` | room in the queue, also for what is on its way there |
//! | `list` | lists of runs, those in memory and those on record as one |
//! | `dispatch` | gives runs to hosts and follows them |
//! | `hosts` | which hosts there are |
//! | `sandboxes` | sandboxes and their snapshots: their records, and what their hosts tell |
//! | `answers` | what is kept for requests that are repeated |
//! | `recording`, `records` | runs in the database, and what a record holds |
//! | `metrics` | what is measured, and the line in the log for each run |
//! | `traces` | the spans of a run that is over |
//! | `keys`, `usage` | who may ask, and what was used |

mod answers;
mod dispatch;
mod entry;
mod hosts;
mod keys;
mod list;
mod metrics;
mod recording;
mod records;
mod room;
mod runs;
mod sandboxes;
mod service;
mod templates;
#[cfg(test)]
mod tests;
mod traces;
mod usage;

pub use service::{Config, Coordinator, ServeError};
