//! How runs ended, and what they wrote, as their logs tell it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use firelane_model::id::RunId;
use firelane_wire::bus::ReadRun;
use firelane_wire::event::{End, Event, ReadLog};
use firelane_wire::problem::Problem;
use firelane_wire::run::{Ending, Ran, Run, RunState};

use crate::Gateway;

/// Runs whose end is remembered: more than any list of the dashboard shows.
const MAX_KNOWN: usize = 1000;
/// Bytes of a log that are read at once.
const PAGE_BYTES: u64 = 256 << 10;
/// Bytes of a log that are read for a list; a run that wrote more is listed without its phases.
const LISTED_BYTES: usize = 1 << 20;

/// How a program ended, and where it ran.
pub(super) struct Done {
    pub(super) ending: Ending,
    pub(super) ran: Ran,
}

/// The ends of runs that were listed: they do not change, and are read once.
#[derive(Default)]
pub(crate) struct Ends {
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    ends: HashMap<RunId, Option<Arc<Done>>>,
    /// Oldest first.
    order: VecDeque<RunId>,
}

impl Ends {
    /// How a listed run ended, if its program did.
    pub(super) async fn of(
        &self,
        gateway: &Gateway,
        tenant: &str,
        run: &Run,
    ) -> Result<Option<Arc<Done>>, Problem> {
        if run.state != RunState::Done {
            return Ok(None);
        }
        if let Some(known) = self.known().ends.get(&run.id) {
            return Ok(known.clone());
        }
        let told = read(gateway, tenant, run.id, 0, LISTED_BYTES).await?;
        let done = told.done.map(Arc::new);
        if told.over || told.cut {
            self.remember(run.id, done.clone());
        }
        Ok(done)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, id: RunId, done: Option<Arc<Done>>) {
        let mut known = self.known();
        if known.ends.insert(id, done).is_none() {
            known.order.push_back(id);
        }
        while known.order.len() > MAX_KNOWN {
            if let Some(oldest) = known.order.pop_front() {
                known.ends.remove(&oldest);
            }
        }
    }
}

/// Which stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    /// What a program wrote to stdout.
    Stdout,
    /// What it wrote to stderr.
    Stderr,
}

/// What a log tells.
#[derive(Default)]
pub(super) struct Told {
    /// What was written, in order, neighbours of one stream as one.
    pub(super) written: Vec<(Stream, Vec<u8>)>,
    /// Bytes that were written and are not kept here.
    pub(super) left_out: usize,
    /// How the program ended.
    pub(super) done: Option<Done>,
    /// The end is known.
    over: bool,
    /// The log is longer than was to be read.
    cut: bool,
}

/// Reads what a log has now: keeps so many bytes of what was written, and reads on to the end, but no
/// more than `most` bytes.
pub(super) async fn read(
    gateway: &Gateway,
    tenant: &str,
    id: RunId,
    keep: usize,
    most: usize,
) -> Result<Told, Problem> {
    let mut told = Told::default();
    let (mut after, mut bytes, mut kept) = (0, 0, 0);
    loop {
        let call = ReadRun {
            tenant: tenant.into(),
            id,
            read: ReadLog {
                after,
                max_bytes: PAGE_BYTES,
                wait_ms: 0,
                whole: false,
            },
        };
        let page = gateway.coordinator.ask(&call).await?;
        let nothing = page.events.is_empty() && page.gap.is_none();
        if let Some((_, last)) = page.gap {
            after = last;
        }
        for (number, event) in page.events {
            after = number;
            bytes += event.bytes();
            told.hear(event, keep, &mut kept);
        }
        if page.end {
            told.over = true;
        }
        if page.end || nothing {
            return Ok(told);
        }
        if bytes >= most {
            told.cut = true;
            return Ok(told);
        }
    }
}

impl Told {
    fn hear(&mut self, event: Event, keep: usize, kept: &mut usize) {
        match event {
            Event::Stdout(bytes) => self.write(Stream::Stdout, bytes, keep, kept),
            Event::Stderr(bytes) => self.write(Stream::Stderr, bytes, keep, kept),
            Event::Ended(end) => {
                if let End::Done { ending, ran } = *end {
                    self.done = Some(Done { ending, ran });
                }
            }
            Event::Started { .. } | Event::File { .. } | Event::Missing { .. } => {}
        }
    }

    fn write(&mut self, stream: Stream, mut bytes: Vec<u8>, keep: usize, kept: &mut usize) {
        let room = keep - *kept;
        self.left_out += bytes.len().saturating_sub(room);
        bytes.truncate(room);
        *kept += bytes.len();
        match self.written.last_mut() {
            _ if bytes.is_empty() => {}
            Some((last, all)) if *last == stream => all.extend(bytes),
            _ => self.written.push((stream, bytes)),
        }
    }
}
