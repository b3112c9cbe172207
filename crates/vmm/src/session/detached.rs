//! Execs that outlive the session: see "Detached execs" in `docs/protocol.md`.

use std::time::Duration;

use firelane_guest_proto::frame::{Frame, Kind};
use firelane_guest_proto::message::{
    AttachSpec, Attached, ExecSpec, Forget, LaunchSpec, Listed, Listing, MAX_DETACHED, from_frame,
    is_id, to_frame,
};
use tokio::time::timeout;

use super::{Exec, Session, SessionError, violation};

/// How long a guest may take to start a program, or to answer a question; emulation is slow.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

impl Session {
    /// Starts a program that outlives this session; it runs when this returns. `id` names it, see
    /// [`is_id`].
    ///
    /// # Errors
    /// [`SessionError::Refused`] if it could not be started, or the name is taken.
    pub async fn launch(&self, id: &str, exec: &ExecSpec) -> Result<(), SessionError> {
        let spec = LaunchSpec {
            id: id.into(),
            exec: exec.clone(),
        };
        self.carry_out(to_frame(0, Kind::Launch, &spec), ANSWER_TIMEOUT)
            .await
    }

    /// Follows a detached exec, and tells from where on. Who followed it before reads the refusal
    /// `TakenOver`. Bytes that were taken from it are confirmed, and are not kept by the guest; a
    /// later attach can go on behind them. After its end, [`Session::forget`] it.
    ///
    /// # Errors
    /// [`SessionError::Refused`] if there is none of the name, or the position is not kept.
    pub async fn attach(&self, spec: &AttachSpec) -> Result<(Exec, Attached), SessionError> {
        let request = to_frame(0, Kind::Attach, spec).map_err(|_| SessionError::TooLarge)?;
        let attached = async {
            let mut stream = self.shared.open(request).await?;
            let frame = stream.next().await?;
            match frame.kind {
                Kind::Attached => Ok((Exec { stream }, from_frame(&frame)?)),
                kind => Err(violation(&format!(
                    "a {kind:?} frame in place of its state"
                ))),
            }
        };
        timeout(ANSWER_TIMEOUT, attached)
            .await
            .map_err(|_| SessionError::Silent(ANSWER_TIMEOUT))?
    }

    /// The detached execs that there are, by name.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn list(&self) -> Result<Vec<Listed>, SessionError> {
        let listing = async {
            let request = Frame::new(0, Kind::List, Vec::new());
            let frame = self.shared.open(request).await?.next().await?;
            match frame.kind {
                Kind::Listing => checked(from_frame(&frame)?),
                kind => Err(violation(&format!("a {kind:?} frame in place of its list"))),
            }
        };
        timeout(ANSWER_TIMEOUT, listing)
            .await
            .map_err(|_| SessionError::Silent(ANSWER_TIMEOUT))?
    }

    /// Has the guest forget a detached exec that has ended.
    ///
    /// # Errors
    /// [`SessionError::Refused`] if there is none of the name, or it still runs.
    pub async fn forget(&self, id: &str) -> Result<(), SessionError> {
        let spec = Forget { id: id.into() };
        self.carry_out(to_frame(0, Kind::Forget, &spec), ANSWER_TIMEOUT)
            .await
    }
}

/// A list that can be: names are ours, and few.
fn checked(listing: Listing) -> Result<Vec<Listed>, SessionError> {
    let execs = listing.execs;
    if execs.len() <= MAX_DETACHED && execs.iter().all(|exec| is_id(&exec.id)) {
        Ok(execs)
    } else {
        Err(violation("a list that cannot be"))
    }
}
