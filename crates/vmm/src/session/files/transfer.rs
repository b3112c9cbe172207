//! Files put into the guest and got from it.

use std::sync::Arc;
use std::time::Duration;

use firelane_guest_proto::frame::{Channel, Frame, Kind, MAX_DATA_BYTES};
use firelane_guest_proto::message::{FileInfo, GetSpec, PutSpec, from_frame, to_frame};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use tokio::time::timeout;

use super::{Session, SessionError, Stream, violation};

/// How long the guest may take for a file, beside what its size takes.
const FILE_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes that even an emulated guest takes or gives in one second.
const LEAST_BYTES_PER_SECOND: u64 = 256 << 10;

/// Bounds the whole transfer of `bytes`: a guest that lets them drip must not hold us for ever.
async fn bounded<T>(
    bytes: u64,
    transfer: impl Future<Output = Result<T, SessionError>>,
) -> Result<T, SessionError> {
    let limit = FILE_TIMEOUT + Duration::from_secs(bytes / LEAST_BYTES_PER_SECOND);
    timeout(limit, transfer)
        .await
        .map_err(|_| SessionError::Silent(limit))?
}

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
        bounded(spec.size, self.put_all(spec, content)).await
    }

    async fn put_all(
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
                Some(room) = credit.take(wanted) => room,
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
        content: impl AsyncWrite + Unpin,
    ) -> Result<FileInfo, SessionError> {
        let frame = to_frame(0, Kind::Get, spec).map_err(|_| SessionError::TooLarge)?;
        let mut get = Get::of(self.shared.open(frame).await?);
        let info = bounded(0, get.info(spec)).await?;
        bounded(info.size, get.content(info.size, content)).await?;
        get.complete = true;
        Ok(info)
    }
}

/// A get under way. Dropped before its end, it tells the guest that no more is wanted.
struct Get {
    stream: Stream,
    complete: bool,
}

impl Get {
    fn of(stream: Stream) -> Get {
        Get {
            stream,
            complete: false,
        }
    }

    /// What the guest says of the file.
    async fn info(&mut self, spec: &GetSpec) -> Result<FileInfo, SessionError> {
        let first = self.stream.next().await?;
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
        Ok(info)
    }

    /// Its bytes, up to the guest's word that these were all.
    async fn content(
        &mut self,
        mut left: u64,
        mut content: impl AsyncWrite + Unpin,
    ) -> Result<(), SessionError> {
        let host_file = |error: std::io::Error| SessionError::HostFile {
            reason: error.to_string(),
        };
        loop {
            let frame = self.stream.next().await?;
            match frame.kind {
                Kind::Data if frame.channel == Channel::File => {
                    let count = frame.payload.len() as u64;
                    left = left
                        .checked_sub(count)
                        .ok_or_else(|| violation("more bytes than announced"))?;
                    content.write_all(&frame.payload).await.map_err(host_file)?;
                    self.stream
                        .grant(Channel::File, frame.payload.len())
                        .await?;
                }
                Kind::End => {}
                Kind::Done if left == 0 => break,
                kind => return Err(violation(&format!("a {kind:?} frame during a get"))),
            }
        }
        content.flush().await.map_err(host_file)
    }
}

impl Drop for Get {
    fn drop(&mut self) {
        if self.complete {
            return;
        }
        // Whoever gives up cannot wait for the writer.
        let shared = Arc::clone(&self.stream.shared);
        let end = Frame::end(self.stream.id, Channel::File);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            // A session that has ended needs no word of it.
            runtime.spawn(async move { drop(shared.send(&end).await) });
        }
    }
}
