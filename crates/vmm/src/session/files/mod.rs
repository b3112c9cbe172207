//! Files of the guest: put and got, listed, made, moved, removed and watched.
//!
//! Every request has a deadline, and what the guest answers is checked before it is passed on.

mod check;
mod folders;
mod get;
mod put;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use firelane_guest_proto::frame::{Channel, Frame, Kind};
use firelane_guest_proto::message::from_frame;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout};

use super::{SessionError, Stream, violation};

pub(super) use get::Get;
pub use watch::Watch;

/// How long the guest may take for a file, beside what its size takes.
const FILE_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes that even an emulated guest takes or gives in one second.
const LEAST_BYTES_PER_SECOND: u64 = 256 << 10;

/// What is left of the time that the guest may take for a transfer: one that lets bytes drip must
/// not hold us for ever. What our own side takes, such as a slow client, does not count.
struct Patience {
    limit: Duration,
    left: Duration,
}

impl Patience {
    /// For a transfer of `bytes`.
    fn new(bytes: u64) -> Patience {
        let limit = FILE_TIMEOUT + Duration::from_secs(bytes / LEAST_BYTES_PER_SECOND);
        Patience { limit, left: limit }
    }

    /// Waits for the guest.
    async fn wait<T>(
        &mut self,
        guest: impl Future<Output = Result<T, SessionError>>,
    ) -> Result<T, SessionError> {
        let start = Instant::now();
        let waited = timeout(self.left, guest).await;
        self.left = self.left.saturating_sub(start.elapsed());
        waited.map_err(|_| SessionError::Silent(self.limit))?
    }
}

/// Waits for the guest, which may take the time of `bytes`.
pub(super) async fn bounded<T>(
    bytes: u64,
    guest: impl Future<Output = Result<T, SessionError>>,
) -> Result<T, SessionError> {
    Patience::new(bytes).wait(guest).await
}

/// The message of this kind that the guest sends next.
async fn message<T: DeserializeOwned>(stream: &mut Stream, kind: Kind) -> Result<T, SessionError> {
    let frame = stream.next().await?;
    if frame.kind != kind {
        let found = frame.kind;
        return Err(violation(&format!(
            "a {found:?} frame in place of {kind:?}"
        )));
    }
    Ok(from_frame(&frame)?)
}

/// The guest's word that a request is carried out.
pub(super) async fn done(stream: &mut Stream) -> Result<(), SessionError> {
    match stream.next().await?.kind {
        Kind::Done => Ok(()),
        kind => Err(violation(&format!("a {kind:?} frame in place of its word"))),
    }
}

/// Tells the guest that no more is wanted. Whoever gives up cannot wait for the writer.
fn leave(stream: &Stream) {
    let shared = Arc::clone(&stream.shared);
    let end = Frame::end(stream.id, Channel::File);
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        // A session that has ended needs no word of it.
        runtime.spawn(async move { drop(shared.send(&end).await) });
    }
}
