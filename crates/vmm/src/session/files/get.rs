//! Files read, whole or in part.

use firelane_guest_proto::files::{FileKind, FileStat, GetRangeSpec};
use firelane_guest_proto::frame::{Channel, Kind};
use firelane_guest_proto::message::{FileInfo, GetSpec, from_frame, to_frame};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::{Patience, bounded, check, leave, message};
use crate::session::{Session, SessionError, Stream, violation};

impl Session {
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
        get.finish(info.size, content).await?;
        Ok(info)
    }
}

impl Session {
    /// Reads a part of a regular file into `content`; gives what the guest said of the file.
    ///
    /// # Errors
    /// As [`Session::get`].
    pub async fn get_range(
        &self,
        spec: &GetRangeSpec,
        content: impl AsyncWrite + Unpin,
    ) -> Result<FileStat, SessionError> {
        let mut get = self.range_ahead(spec).await?;
        let stat = get.range_info().await?;
        get.finish(spec.count(stat.size), content).await?;
        Ok(stat)
    }

    /// Asks for a part of a file, without waiting for it.
    pub(in crate::session) async fn range_ahead(
        &self,
        spec: &GetRangeSpec,
    ) -> Result<Get, SessionError> {
        let frame = to_frame(0, Kind::GetRange, spec).map_err(|_| SessionError::TooLarge)?;
        Ok(Get::of(self.shared.open(frame).await?))
    }
}

/// A get under way. Dropped before its end, it tells the guest that no more is wanted.
pub(in crate::session) struct Get {
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

    /// What the guest says of a file of which a part is asked for.
    pub(in crate::session) async fn range_info(&mut self) -> Result<FileStat, SessionError> {
        let stat: FileStat = bounded(0, message(&mut self.stream, Kind::FileStat)).await?;
        check::stat(&stat)?;
        if stat.kind != FileKind::File {
            return Err(violation("the bytes of what is no file"));
        }
        Ok(stat)
    }

    /// The `size` bytes that it said would follow.
    pub(in crate::session) async fn finish(
        mut self,
        size: u64,
        content: impl AsyncWrite + Unpin,
    ) -> Result<(), SessionError> {
        self.content(size, content).await?;
        self.complete = true;
        Ok(())
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
        let mut patience = Patience::new(left);
        loop {
            let frame = patience.wait(self.stream.next()).await?;
            match frame.kind {
                Kind::Data if frame.channel == Channel::File => {
                    let count = frame.payload.len() as u64;
                    left = left
                        .checked_sub(count)
                        .ok_or_else(|| violation("more bytes than announced"))?;
                    content.write_all(&frame.payload).await.map_err(host_file)?;
                    let granted = self.stream.grant(Channel::File, frame.payload.len());
                    patience.wait(granted).await?;
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
        if !self.complete {
            leave(&self.stream);
        }
    }
}
