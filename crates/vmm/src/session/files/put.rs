//! Files written.

use std::sync::Arc;

use firelane_guest_proto::frame::{Channel, Frame, Kind, MAX_DATA_BYTES};
use firelane_guest_proto::message::{PutSpec, to_frame};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::{Patience, bounded, leave};
use crate::session::{Session, SessionError, Stream, violation};

impl Session {
    /// Writes a file of exactly `spec.size` bytes, read from `content`.
    ///
    /// # Errors
    /// [`SessionError::Refused`] if the guest does not take it, [`SessionError::HostFile`] if
    /// `content` fails or ends early.
    pub async fn put(
        &self,
        spec: &PutSpec,
        content: impl AsyncRead + Unpin,
    ) -> Result<(), SessionError> {
        self.put_all(spec, content).await
    }

    /// Sends a whole file that fits one frame, without waiting for the guest's word.
    pub(in crate::session) async fn put_ahead(
        &self,
        spec: &PutSpec,
        content: &[u8],
    ) -> Result<Stream, SessionError> {
        let frame = to_frame(0, Kind::Put, spec).map_err(|_| SessionError::TooLarge)?;
        let sent = async {
            let stream = self.shared.open(frame).await?;
            if !content.is_empty() {
                let data = Frame::data(stream.id, Channel::File, content);
                self.shared.send(&data).await?;
            }
            let end = Frame::end(stream.id, Channel::File);
            self.shared.send(&end).await?;
            Ok(stream)
        };
        bounded(spec.size, sent).await
    }

    async fn put_all(
        &self,
        spec: &PutSpec,
        mut content: impl AsyncRead + Unpin,
    ) -> Result<(), SessionError> {
        let frame = to_frame(0, Kind::Put, spec).map_err(|_| SessionError::TooLarge)?;
        let mut patience = Patience::new(spec.size);
        let mut put = Put {
            stream: patience.wait(self.shared.open(frame)).await?,
            ended: false,
        };
        let mut left = spec.size;
        let mut buffer = vec![0; MAX_DATA_BYTES];
        while left > 0 {
            let wanted = usize::try_from(left)
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            let room = patience.wait(put.room(wanted)).await?;
            if let Err(error) = content.read_exact(&mut buffer[..room]).await {
                // An early end makes the guest drop what it has, before whatever is asked next.
                patience.wait(put.end()).await?;
                return Err(SessionError::HostFile {
                    reason: error.to_string(),
                });
            }
            let data = Frame::data(put.stream.id, Channel::File, &buffer[..room]);
            patience.wait(put.stream.shared.send(&data)).await?;
            left -= room as u64;
        }
        patience.wait(put.end()).await?;
        match patience.wait(put.stream.next()).await?.kind {
            Kind::Done => Ok(()),
            kind => Err(violation(&format!("a {kind:?} frame at the end of a put"))),
        }
    }
}

/// A put under way. Dropped before its end, it tells the guest that no more comes.
struct Put {
    stream: Stream,
    ended: bool,
}

impl Put {
    async fn end(&mut self) -> Result<(), SessionError> {
        let end = Frame::end(self.stream.id, Channel::File);
        self.stream.shared.send(&end).await?;
        self.ended = true;
        Ok(())
    }

    /// Bytes that may be sent now, at most `wanted`.
    async fn room(&mut self, wanted: usize) -> Result<usize, SessionError> {
        let credit = Arc::clone(&self.stream.credit);
        // A refusal in the middle comes as an event, while no window comes any more.
        tokio::select! {
            Some(room) = credit.take(wanted) => Ok(room),
            event = self.stream.next() => {
                let kind = event?.kind;
                Err(violation(&format!("a {kind:?} frame during a put")))
            }
        }
    }
}

impl Drop for Put {
    fn drop(&mut self) {
        if !self.ended {
            leave(&self.stream);
        }
    }
}
