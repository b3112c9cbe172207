//! One line of JSON for each operation: who asked for what, and what came of it.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use firelane_host_proto::message::Code;
use firelane_sys::peer::Peer;
use serde::Serialize;

/// Where the lines go: stderr, and a file if there is one.
#[derive(Debug)]
pub(crate) struct Audit {
    file: Option<Mutex<File>>,
}

#[derive(Serialize)]
struct Line<'a> {
    /// Milliseconds of the Unix clock.
    time_ms: u128,
    uid: u32,
    pid: u32,
    op: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    /// `ok`, or the code of the refusal.
    outcome: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'a str>,
}

impl Audit {
    /// Opens the file to append to it; only root reads it.
    pub(crate) fn open(path: Option<&Path>) -> io::Result<Audit> {
        let mut options = File::options();
        options.create(true).append(true).mode(0o600);
        let file = path.map(|path| options.open(path)).transpose()?;
        Ok(Audit {
            file: file.map(Mutex::new),
        })
    }

    /// Writes down what a client asked for.
    pub(crate) fn write(
        &self,
        peer: &Peer,
        op: &str,
        id: Option<&str>,
        outcome: Result<(), (Code, &str)>,
    ) {
        let code = outcome.err().map(|(code, _)| code.to_string());
        self.line(&Line {
            time_ms: now_ms(),
            uid: peer.uid,
            pid: peer.pid,
            op,
            id,
            outcome: code.as_deref().unwrap_or("ok"),
            cause: outcome.err().map(|(_, cause)| cause),
        });
    }

    /// Writes down what hostd did by itself.
    pub(crate) fn own(&self, op: &str, id: Option<&str>, cause: Option<&str>) {
        self.line(&Line {
            time_ms: now_ms(),
            uid: 0,
            pid: std::process::id(),
            op,
            id,
            outcome: if cause.is_none() { "ok" } else { "failed" },
            cause,
        });
    }

    fn line(&self, line: &Line<'_>) {
        let mut text = serde_json::to_string(line).expect("a line has keys that are text");
        text.push('\n');
        // There is nobody to tell that stderr is closed.
        let _ = io::stderr().write_all(text.as_bytes());
        if let Some(file) = &self.file {
            // One write to a file that is appended to: lines do not mix.
            let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
            if let Err(error) = file.write_all(text.as_bytes()) {
                let _ = writeln!(
                    io::stderr(),
                    "firelane-hostd: cannot write the audit: {error}"
                );
            }
        }
    }
}

fn now_ms() -> u128 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis())
}
