//! Files that a run gives back, written to its log in parts.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use firelane_guest_proto::message::GetSpec;
use firelane_store::live::LiveLog;
use firelane_vmm::session::Session;
use firelane_wire::event::Event;
use tokio::io::AsyncWrite;

/// Most bytes of all files of one run.
pub(super) const MAX_BYTES: u64 = 16 << 20;

/// Writes files to the log, or why there is none of one: of all together no more than fits.
pub(super) async fn fetch(session: &Session, paths: &[String], log: &LiveLog) {
    let mut left = MAX_BYTES;
    for path in paths {
        left -= fetch_one(session, path, left, log).await;
    }
}

/// Gives how many bytes were written.
async fn fetch_one(session: &Session, path: &str, max_bytes: u64, log: &LiveLog) -> u64 {
    let spec = GetSpec {
        path: path.to_owned(),
        max_bytes,
    };
    let mut parts = Parts {
        path,
        log,
        written: None,
    };
    match session.get(&spec, &mut parts).await {
        Ok(_) if parts.written.is_some() => {}
        // An empty file is a file.
        Ok(_) => parts.append(&[]),
        Err(error) => log.append(Event::Missing {
            path: path.to_owned(),
            reason: error.to_string(),
        }),
    }
    parts.written.unwrap_or(0).min(max_bytes)
}

struct Parts<'a> {
    path: &'a str,
    log: &'a LiveLog,
    /// Bytes, if any were.
    written: Option<u64>,
}

impl Parts<'_> {
    fn append(&mut self, bytes: &[u8]) {
        self.written = Some(self.written.unwrap_or(0) + bytes.len() as u64);
        self.log.append(Event::File {
            path: self.path.to_owned(),
            bytes: bytes.to_vec(),
        });
    }
}

impl AsyncWrite for Parts<'_> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.append(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
