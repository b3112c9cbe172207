//! Folders watched.

use firelane_guest_proto::files::{Change, Events, WatchSpec};
use firelane_guest_proto::frame::{Channel, Kind};
use firelane_guest_proto::message::from_frame;

use super::{bounded, check, leave};
use crate::session::{Session, SessionError, Stream, violation};

/// A folder that is being watched. Dropped, it is watched no more.
pub struct Watch {
    stream: Stream,
    ended: bool,
}

impl Session {
    /// Watches a folder: what changes in it after this has returned is told.
    ///
    /// # Errors
    /// [`SessionError::Refused`] if there is no such folder, or too much is watched already.
    pub async fn watch(&self, spec: &WatchSpec) -> Result<Watch, SessionError> {
        let started = async {
            let stream = self.ahead(Kind::Watch, spec).await?;
            let mut watch = Watch {
                stream,
                ended: false,
            };
            match watch.stream.next().await?.kind {
                Kind::Started => Ok(watch),
                kind => Err(violation(&format!(
                    "a {kind:?} frame at the start of a watch"
                ))),
            }
        };
        bounded(0, started).await
    }
}

impl Watch {
    /// What has changed since the last call; waits until something has. Nothing, once the folder is
    /// gone.
    ///
    /// # Errors
    /// [`SessionError`] if the session ended.
    pub async fn next(&mut self) -> Result<Option<Vec<Change>>, SessionError> {
        let frame = self.stream.next().await?;
        match frame.kind {
            Kind::Events => {
                self.stream
                    .grant(Channel::File, frame.payload.len())
                    .await?;
                let events: Events = from_frame(&frame)?;
                check::events(&events)?;
                Ok(Some(events.changes))
            }
            Kind::Done => {
                self.ended = true;
                Ok(None)
            }
            kind => Err(violation(&format!("a {kind:?} frame during a watch"))),
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if !self.ended {
            leave(&self.stream);
        }
    }
}
