//! From a run's log to its outcome.

use std::sync::Arc;
use std::time::Duration;

use firelane_model::id::RunId;
use firelane_wire::bus::{GetRun, ReadRun};
use firelane_wire::content;
use firelane_wire::event::{End, Event, ReadLog};
use firelane_wire::problem::{Code, Problem};
use firelane_wire::run::{FileOut, Outcome, Run};

use crate::Gateway;

/// How long the coordinator is asked to wait for more, in milliseconds.
const WAIT_MS: u64 = 20_000;
/// Bytes of a log that are read at once.
const PAGE_BYTES: u64 = 512 << 10;

/// What a log has told so far.
#[derive(Default)]
struct Told {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    files: Vec<(String, Vec<u8>)>,
    missing: Vec<FileOut>,
    end: Option<End>,
}

/// Waits for the end of a run; gives it with its outcome.
pub(super) async fn wait(gateway: &Arc<Gateway>, tenant: &str, id: RunId) -> Result<Run, Problem> {
    let mut told = Told::default();
    let mut after = 0;
    loop {
        let call = ReadRun {
            tenant: tenant.into(),
            id,
            read: ReadLog {
                after,
                max_bytes: PAGE_BYTES,
                wait_ms: WAIT_MS,
                whole: true,
            },
        };
        let longer = Duration::from_millis(WAIT_MS);
        let page = gateway.coordinator.ask_for(&call, longer).await?;
        if let Some((first, last)) = page.gap {
            let cause = format!("events {first} to {last} of the run are lost");
            return Err(Problem::new(Code::Internal, cause));
        }
        for (number, event) in page.events {
            after = number;
            told.hear(event);
        }
        if page.end {
            break;
        }
    }
    let get = GetRun {
        tenant: tenant.into(),
        id,
    };
    let run = gateway.coordinator.ask(&get).await?;
    Ok(told.into_run(run))
}

impl Told {
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

    fn into_run(self, run: Run) -> Run {
        let Some(End::Done { ending, ran }) = self.end else {
            return run;
        };
        let (stdout, stdout_base64) = content::text(self.stdout);
        let (stderr, stderr_base64) = content::text(self.stderr);
        let files = self.files.into_iter().map(|(path, bytes)| FileOut {
            path,
            base64: Some(content::base64(&bytes)),
            missing: None,
        });
        let outcome = Outcome {
            ending,
            stdout,
            stdout_base64,
            stderr,
            stderr_base64,
            files: files.chain(self.missing).collect(),
            ran,
        };
        Run {
            outcome: Some(outcome),
            ..run
        }
    }
}
