//! Files put into the guest and got from it.

use std::sync::Arc;

use firelane_guest_proto::frame::{Channel, Frame, Kind, MAX_DATA_BYTES};
use firelane_guest_proto::message::{FileInfo, GetSpec, PutSpec, from_frame, to_frame};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{Session, SessionError, violation};

impl Session {
    /// Writes a file of exactly `spec.size` bytes, read from `content`.
    ///
    /// # Errors
    /// [`SessionError::Refused`] if the guest does not take it, [`SessionError::HostFile`] if
    /// `content` fails or ends early.
    pub async fn put(
        &self,
        spec: &PutSpec,
        mut content: impl AsyncRead + Unpin,
    ) -> Result<(), SessionError> {
        let frame = to_frame(0, Kind::Put, spec).map_err(|_| SessionError::TooLarge)?;
        let mut stream = self.shared.open(frame).await?;
        let credit = Arc::clone(&stream.credit);
        let mut left = spec.size;
        let mut buffer = vec![0; MAX_DATA_BYTES];
        while left > 0 {
            let wanted = usize::try_from(left)
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            // A refusal in the middle comes as an event, while no window comes any more.
            let room = tokio::select! {
                room = credit.take(wanted) => room,
                event = stream.next() => {
                    let kind = event?.kind;
                    return Err(violation(&format!("a {kind:?} frame during a put")));
                }
            };
            if let Err(error) = content.read_exact(&mut buffer[..room]).await {
                // An early end makes the guest drop what it has.
                stream
                    .shared
                    .send(&Frame::end(stream.id, Channel::File))
                    .await?;
                return Err(SessionError::HostFile {
                    reason: error.to_string(),
                });
            }
            stream
                .shared
                .send(&Frame::data(stream.id, Channel::File, &buffer[..room]))
                .await?;
            left -= room as u64;
        }
        stream
            .shared
            .send(&Frame::end(stream.id, Channel::File))
            .await?;
        match stream.next().await?.kind {
            Kind::Done => Ok(()),
            kind => Err(violation(&format!("a {kind:?} frame at the end of a put"))),
        }
    }

    /// Reads a regular file into `content`; gives what the guest said of it.
    ///
    /// # Errors
    /// [`SessionError::Refused`] if the guest does not give it, [`SessionError::HostFile`] if
    /// `content` does not take it.
    pub async fn get(
        &self,
        spec: &GetSpec,
        mut content: impl AsyncWrite + Unpin,
    ) -> Result<FileInfo, SessionError> {
        let frame = to_frame(0, Kind::Get, spec).map_err(|_| SessionError::TooLarge)?;
        let mut stream = self.shared.open(frame).await?;
        let host_file = |error: std::io::Error| SessionError::HostFile {
            reason: error.to_string(),
        };
        let first = stream.next().await?;
        if first.kind != Kind::FileInfo {
            return Err(violation(&format!(
                "a {:?} frame at the start of a get",
                first.kind
            )));
        }
        let info: FileInfo = from_frame(&first)?;
        if info.size > spec.max_bytes {
            return Err(violation("a file over the size asked for"));
        }
        let mut left = info.size;
        loop {
            let frame = stream.next().await?;
            match frame.kind {
                Kind::Data => {
                    let count = frame.payload.len() as u64;
                    left = left
                        .checked_sub(count)
                        .ok_or_else(|| violation("more bytes than announced"))?;
                    content.write_all(&frame.payload).await.map_err(host_file)?;
                    stream.grant(Channel::File, frame.payload.len()).await?;
                }
                Kind::End => {}
                Kind::Done if left == 0 => break,
                kind => return Err(violation(&format!("a {kind:?} frame during a get"))),
            }
        }
        content.flush().await.map_err(host_file)?;
        Ok(info)
    }
}
