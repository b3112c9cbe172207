//! Out of a pipe, into the body of an answer. One that breaks breaks the body off, so that no half of
//! a file or archive looks like all of it; a client that leaves drops the body, and with it the pipe.

use std::io;
use std::time::Duration;

use axum::body::{Body, Bytes};
use firelane_wire::problem::{Code, Problem};
use futures_util::stream;
use tokio::time::Instant;

use super::pipe::Pipe;

/// How long is waited for the next part at a time.
const WAIT: Duration = Duration::from_secs(10);
/// How long a pipe may bring nothing.
const MAX_SILENCE: Duration = Duration::from_secs(60);

/// What comes out of a pipe; so many bytes, if that is known.
pub(super) fn body(pipe: Pipe, count: Option<u64>) -> Body {
    if count == Some(0) {
        return Body::empty();
    }
    let state = Some(Outgoing { pipe, left: count });
    Body::from_stream(stream::unfold(state, |state| async {
        let mut outgoing = state?;
        match outgoing.next().await {
            Ok((bytes, false)) => Some((Ok(bytes), Some(outgoing))),
            Ok((bytes, true)) => Some((Ok(bytes), None)),
            Err(problem) => {
                tracing::debug!(%problem, "what came out of a pipe broke off");
                Some((Err(io::Error::other(problem)), None))
            }
        }
    }))
}

struct Outgoing {
    pipe: Pipe,
    /// Bytes that are still to come, if that is known.
    left: Option<u64>,
}

impl Outgoing {
    /// The next bytes, and whether they are the last.
    async fn next(&mut self) -> Result<(Bytes, bool), Problem> {
        let began = Instant::now();
        loop {
            let part = self.pipe.read(WAIT).await?;
            if part.bytes.is_empty() && !part.end {
                if began.elapsed() < MAX_SILENCE {
                    continue;
                }
                let cause = format!("nothing came out of the sandbox for {MAX_SILENCE:?}");
                return Err(Problem::new(Code::Unavailable, cause));
            }
            let last = self.count(part.bytes.len(), part.end)?;
            return Ok((part.bytes.into(), last));
        }
    }

    /// So many bytes have come; whether they are the last.
    fn count(&mut self, bytes: usize, end: bool) -> Result<bool, Problem> {
        let Some(left) = self.left else {
            return Ok(end);
        };
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        match left.checked_sub(bytes) {
            Some(0) => Ok(true),
            Some(left) if !end => {
                self.left = Some(left);
                Ok(false)
            }
            Some(left) => {
                let cause = format!("the file ended {left} bytes before its end");
                Err(Problem::new(Code::Conflict, cause))
            }
            None => {
                let cause = "the file is longer than it was";
                Err(Problem::new(Code::Conflict, cause))
            }
        }
    }
}
