//! What happens to a run or an exec, in order.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::content;
use crate::problem::Problem;
use crate::run::{Ending, Origin, Ran};

/// One thing that happened. Numbered from 1 in the log of its run or exec.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A microVM has it.
    Started {
        /// The host of the microVM.
        host: String,
        /// Where the microVM came from.
        origin: Origin,
    },
    /// Bytes of stdout, or of the terminal.
    Stdout(#[serde(with = "serde_bytes")] Vec<u8>),
    /// Bytes of stderr.
    Stderr(#[serde(with = "serde_bytes")] Vec<u8>),
    /// A part of a file that was asked for, in order.
    File {
        /// The path that was asked for.
        path: String,
        /// The next bytes of it.
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
    },
    /// A file that was asked for and that there is not.
    Missing {
        /// The path that was asked for.
        path: String,
        /// Why.
        reason: String,
    },
    /// It is over; nothing follows.
    Ended(Box<End>),
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// The program ended.
    Done {
        /// How.
        ending: Ending,
        /// Where it ran.
        ran: Ran,
    },
    /// Firelane could not run it, or not to its end.
    Failed(Problem),
    /// Its owner ended it.
    Cancelled,
    /// It was not started before its deadline.
    Expired,
}

impl Event {
    /// The name in streams.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Event::Started { .. } => "started",
            Event::Stdout(_) => "stdout",
            Event::Stderr(_) => "stderr",
            Event::File { .. } => "file",
            Event::Missing { .. } => "missing",
            Event::Ended(_) => "ended",
        }
    }

    /// About how much memory it takes, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        const FIXED: usize = 64;
        match self {
            Event::Stdout(bytes) | Event::Stderr(bytes) => FIXED + bytes.len(),
            Event::Started { host, .. } => FIXED + host.len(),
            Event::File { path, bytes } => FIXED + path.len() + bytes.len(),
            Event::Missing { path, reason } => FIXED + path.len() + reason.len(),
            Event::Ended(_) => 16 * FIXED,
        }
    }

    /// As streams of events tell it.
    #[must_use]
    pub fn shown(self) -> EventData {
        let mut data = EventData::default();
        match self {
            Event::Started { host, origin } => {
                data.host = Some(host);
                data.origin = Some(origin);
            }
            Event::Stdout(bytes) | Event::Stderr(bytes) => {
                let (text, base64) = content::text(bytes);
                data.text = base64.is_none().then_some(text);
                data.base64 = base64;
            }
            Event::File { path, bytes } => {
                data.path = Some(path);
                data.base64 = Some(content::base64(&bytes));
            }
            Event::Missing { path, reason } => {
                data.path = Some(path);
                data.reason = Some(reason);
            }
            Event::Ended(end) => match *end {
                End::Done { ending, ran } => {
                    data.ending = Some(ending);
                    data.ran = Some(ran);
                }
                End::Failed(problem) => data.problem = Some(problem),
                End::Cancelled => data.reason = Some("cancelled".into()),
                End::Expired => data.reason = Some("expired".into()),
            },
        }
        data
    }
}

/// The data of an event in a stream; which fields are there depends on its name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EventData {
    /// `stdout`, `stderr`: what was written, if it is UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// `stdout`, `stderr`: what was written, if it is not. `file`: the next bytes of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base64: Option<String>,
    /// `started`: the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// `started`: where the microVM came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// `ended`: how the program ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ending: Option<Ending>,
    /// `file`, `missing`: the path that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// `ended`: where it ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ran: Option<Ran>,
    /// `ended`: why Firelane could not run it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
    /// `ended`: `cancelled` or `expired`. `missing`: why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// `gap`: first number that is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<u64>,
    /// `gap`: last number that is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<u64>,
}

/// A part of a log.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LogPage {
    /// Events with their numbers, in order.
    pub events: Vec<(u64, Event)>,
    /// First and last number of those that were asked for and are gone.
    pub gap: Option<(u64, u64)>,
    /// Nothing follows.
    pub end: bool,
}

/// How to read a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadLog {
    /// The last number that the reader has; 0 for none.
    pub after: u64,
    /// Bytes of the page, about.
    pub max_bytes: u64,
    /// How long to wait for something new, in milliseconds.
    pub wait_ms: u64,
    /// Wait for the end or a full page, not for the next event.
    pub whole: bool,
}

/// What is sent to a program while it runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Input {
    /// Bytes for its standard input.
    Stdin(#[serde(with = "serde_bytes")] Vec<u8>),
    /// The end of its standard input.
    End,
    /// A signal: 9 to everything that it started, others to its process group.
    Signal(u8),
    /// Its terminal has a new size.
    Resize {
        /// Lines.
        rows: u16,
        /// Columns.
        cols: u16,
    },
}
