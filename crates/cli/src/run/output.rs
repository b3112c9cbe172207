//! Where the program's output goes.

use std::io;

use tokio::io::AsyncWriteExt;

use crate::failure::Failure;

/// What becomes of the bytes. However much the guest sends, no more than the limit is kept or
/// passed on.
pub(crate) struct Output {
    kind: Kind,
    limit: u64,
    stdout_bytes: u64,
    stderr_bytes: u64,
}

enum Kind {
    /// Written to our own stdout and stderr as they come.
    Stream,
    /// Kept for the report.
    Collect { stdout: Vec<u8>, stderr: Vec<u8> },
}

impl Output {
    /// Passes bytes on as they come, up to `limit` of each stream.
    pub(crate) fn stream(limit: u64) -> Output {
        Output {
            kind: Kind::Stream,
            limit,
            stdout_bytes: 0,
            stderr_bytes: 0,
        }
    }

    /// Keeps bytes, up to `limit` of each stream.
    pub(crate) fn collect(limit: u64) -> Output {
        let kind = Kind::Collect {
            stdout: Vec::new(),
            stderr: Vec::new(),
        };
        Output {
            kind,
            ..Output::stream(limit)
        }
    }

    /// Bytes of the program's stdout.
    pub(crate) async fn stdout(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.stdout_bytes += bytes.len() as u64;
        self.check(self.stdout_bytes)?;
        match &mut self.kind {
            Kind::Stream => write(tokio::io::stdout(), bytes).await,
            Kind::Collect { stdout, .. } => {
                stdout.extend_from_slice(bytes);
                Ok(())
            }
        }
    }

    /// Bytes of the program's stderr.
    pub(crate) async fn stderr(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.stderr_bytes += bytes.len() as u64;
        self.check(self.stderr_bytes)?;
        match &mut self.kind {
            Kind::Stream => write(tokio::io::stderr(), bytes).await,
            Kind::Collect { stderr, .. } => {
                stderr.extend_from_slice(bytes);
                Ok(())
            }
        }
    }

    /// What was kept.
    pub(crate) fn collected(self) -> (Vec<u8>, Vec<u8>) {
        match self.kind {
            Kind::Stream => (Vec::new(), Vec::new()),
            Kind::Collect { stdout, stderr } => (stdout, stderr),
        }
    }

    /// The guest was told the limit; one that does not keep it is not the guest that we put there.
    fn check(&self, bytes: u64) -> Result<(), Failure> {
        if bytes <= self.limit {
            return Ok(());
        }
        let error = anyhow::anyhow!(
            "the guest sent more output than its limit of {} bytes",
            self.limit
        );
        Err(Failure::platform(error))
    }
}

async fn write(mut to: impl tokio::io::AsyncWrite + Unpin, bytes: &[u8]) -> Result<(), Failure> {
    let written = async {
        to.write_all(bytes).await?;
        to.flush().await
    };
    match written.await {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure::broken_pipe()),
        Err(error) => Err(Failure::platform(
            anyhow::Error::from(error).context("cannot pass on the program's output"),
        )),
        Ok(()) => Ok(()),
    }
}
