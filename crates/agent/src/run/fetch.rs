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

/// Writes a file to the log, or why there is none.
pub(super) async fn fetch(session: &Session, path: &str, log: &LiveLog) {
    let spec = GetSpec {
        path: path.to_owned(),
        max_bytes: MAX_BYTES,
    };
    let mut parts = Parts {
        path,
        log,
        written: false,
    };
    match session.get(&spec, &mut parts).await {
        Ok(_) if parts.written => {}
        // An empty file is a file.
        Ok(_) => parts.append(&[]),
        Err(error) => log.append(Event::Missing {
            path: path.to_owned(),
            reason: error.to_string(),
        }),
    }
}

struct Parts<'a> {
    path: &'a str,
    log: &'a LiveLog,
    written: bool,
}

impl Parts<'_> {
    fn append(&mut self, bytes: &[u8]) {
        self.written = true;
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
