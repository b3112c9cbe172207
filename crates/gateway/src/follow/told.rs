//! What a log has told in all.

use firelane_wire::content;
use firelane_wire::event::{End, Event, LogPage, ReadLog};
use firelane_wire::exec::Output;
use firelane_wire::problem::{Code, Problem};
use firelane_wire::run::FileOut;

use super::Log;
use super::log::missing;

/// How long is waited for more at a time, in milliseconds.
const WAIT_MS: u64 = 20_000;
/// Bytes of a log that are read at once.
const PAGE_BYTES: u64 = 512 << 10;

/// What a log has told so far.
#[derive(Default)]
pub(crate) struct Told {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    files: Vec<(String, Vec<u8>)>,
    missing: Vec<FileOut>,
    end: Option<End>,
    /// Number of the last event that was heard.
    after: u64,
}

impl Told {
    /// Reads a log to its end. One that lacks something is none: nobody would see that bytes are
    /// missing.
    pub(crate) async fn all(log: &Log) -> Result<Told, Problem> {
        let mut told = Told::default();
        loop {
            let page = log.read(told.next()).await?;
            if told.take(page)? {
                return Ok(told);
            }
        }
    }

    /// How to read what comes next.
    pub(crate) fn next(&self) -> ReadLog {
        ReadLog {
            after: self.after,
            max_bytes: PAGE_BYTES,
            wait_ms: WAIT_MS,
            whole: true,
        }
    }

    /// Takes the next page. Whether it was the last.
    pub(crate) fn take(&mut self, page: LogPage) -> Result<bool, Problem> {
        if let Some((first, last)) = page.gap.or_else(|| missing(self.after, &page)) {
            let cause = format!("events {first} to {last} of the program are lost");
            return Err(Problem::new(Code::Internal, cause));
        }
        for (number, event) in page.events {
            self.after = number;
            self.hear(event);
        }
        Ok(page.end)
    }

    fn hear(&mut self, event: Event) {
        match event {
            Event::Started { .. } => {}
            Event::Stdout(bytes) => self.stdout.extend(bytes),
            Event::Stderr(bytes) => self.stderr.extend(bytes),
            Event::File { path, bytes } => match self.files.last_mut() {
                Some((last, content)) if *last == path => content.extend(bytes),
                _ => self.files.push((path, bytes)),
            },
            Event::Missing { path, reason } => self.missing.push(FileOut {
                path,
                base64: None,
                missing: Some(reason),
            }),
            Event::Ended(end) => self.end = Some(*end),
        }
    }

    /// How it ended, if it did.
    pub(crate) fn end(&mut self) -> Option<End> {
        self.end.take()
    }

    /// What was written, and the files that were asked for.
    pub(crate) fn into_parts(self) -> (Output, Vec<FileOut>) {
        let (stdout, stdout_base64) = content::text(self.stdout);
        let (stderr, stderr_base64) = content::text(self.stderr);
        let output = Output {
            stdout,
            stdout_base64,
            stderr,
            stderr_base64,
        };
        let files = self.files.into_iter().map(|(path, bytes)| FileOut {
            path,
            base64: Some(content::base64(&bytes)),
            missing: None,
        });
        (output, files.chain(self.missing).collect())
    }
}
