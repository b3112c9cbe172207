//! Where the program's output goes.

use std::io;

use async_trait::async_trait;
use firelane_agent::follow::Sink;
use tokio::io::AsyncWriteExt;

use crate::failure::Failure;

/// What becomes of the bytes.
pub(crate) enum Output {
    /// Written to our own stdout and stderr as they come.
    Stream,
    /// Kept for the report.
    Collect {
        /// What was written to stdout.
        stdout: Vec<u8>,
        /// What was written to stderr.
        stderr: Vec<u8>,
    },
}

impl Output {
    /// Keeps bytes.
    pub(crate) fn collect() -> Output {
        Output::Collect {
            stdout: Vec::new(),
            stderr: Vec::new(),
        }
    }

    /// What was kept.
    pub(crate) fn collected(self) -> (Vec<u8>, Vec<u8>) {
        match self {
            Output::Stream => (Vec::new(), Vec::new()),
            Output::Collect { stdout, stderr } => (stdout, stderr),
        }
    }
}

#[async_trait]
impl Sink for Output {
    type Error = Failure;

    async fn stdout(&mut self, bytes: Vec<u8>) -> Result<(), Failure> {
        match self {
            Output::Stream => write(tokio::io::stdout(), &bytes).await,
            Output::Collect { stdout, .. } => {
                stdout.extend(bytes);
                Ok(())
            }
        }
    }

    async fn stderr(&mut self, bytes: Vec<u8>) -> Result<(), Failure> {
        match self {
            Output::Stream => write(tokio::io::stderr(), &bytes).await,
            Output::Collect { stderr, .. } => {
                stderr.extend(bytes);
                Ok(())
            }
        }
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
