//! Before a snapshot, and after a restore: see "Snapshots" in `docs/protocol.md`.

use std::time::Duration;

use firelane_guest_proto::frame::Frame;
use firelane_guest_proto::frame::Kind;
use firelane_guest_proto::message::{
    BadMessage, FreezeSpec, RenewSpec, ThawSpec, WarmSpec, to_frame,
};
use tokio::time::timeout;

use super::{Session, SessionError, violation};

/// How long a guest may take to warm: it runs every snippet, on an emulated processor.
const WARM_TIMEOUT: Duration = Duration::from_secs(600);
/// How long a clone may take to renew. One that does not is not used.
const RENEW_TIMEOUT: Duration = Duration::from_secs(10);

impl Session {
    /// Has the guest prepare for a snapshot. Afterwards it carries out nothing but a renewal.
    ///
    /// # Errors
    /// [`SessionError::Refused`] if a snippet fails, with what it said.
    pub async fn warm(&self, spec: &WarmSpec) -> Result<(), SessionError> {
        self.carry_out(to_frame(0, Kind::Warm, spec), WARM_TIMEOUT)
            .await
    }

    /// Gives a clone what makes it different from all others. A clone for which this fails must be
    /// destroyed.
    ///
    /// # Errors
    /// [`SessionError`]; the guest has not confirmed that it is renewed.
    pub async fn renew(&self, spec: &RenewSpec) -> Result<(), SessionError> {
        self.carry_out(to_frame(0, Kind::Renew, spec), RENEW_TIMEOUT)
            .await
    }

    /// Has the guest stop its programs where they are, to be saved; it may take `limit`. Afterwards it
    /// carries out nothing but a renewal or a thaw. The session stays open.
    ///
    /// # Errors
    /// [`SessionError::Refused`] with the code `Busy` if they do not stand still in time: they go on.
    pub async fn freeze(&self, limit: Duration) -> Result<(), SessionError> {
        let spec = FreezeSpec {
            timeout_ms: u32::try_from(limit.as_millis()).unwrap_or(u32::MAX),
        };
        self.carry_out(to_frame(0, Kind::Freeze, &spec), limit + RENEW_TIMEOUT)
            .await
    }

    /// Lets a guest that was frozen go on under its own names.
    ///
    /// # Errors
    /// [`SessionError`]; the guest has not confirmed that it goes on.
    pub async fn thaw(&self, spec: &ThawSpec) -> Result<(), SessionError> {
        self.carry_out(to_frame(0, Kind::Thaw, spec), RENEW_TIMEOUT)
            .await
    }

    /// Sends a request whose answer is a bare word.
    pub(super) async fn carry_out(
        &self,
        request: Result<Frame, BadMessage>,
        limit: Duration,
    ) -> Result<(), SessionError> {
        let request = request.map_err(|_| SessionError::TooLarge)?;
        let done = async {
            let mut stream = self.shared.open(request).await?;
            match stream.next().await?.kind {
                Kind::Done => Ok(()),
                kind => Err(violation(&format!("a {kind:?} frame in place of its word"))),
            }
        };
        timeout(limit, done)
            .await
            .map_err(|_| SessionError::Silent(limit))?
    }
}
