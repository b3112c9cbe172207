//! The side that asks.
//!
//! It blocks: a request is answered within milliseconds, and a start in some more. Whoever must not block
//! calls it from a thread that may.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::VERSION;
use crate::frame::{self, FrameError};
use crate::message::{Refusal, Reply, Request};

/// How long an answer may take; starting or stopping a VMM on a busy host takes longest.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// There is no hostd, or we may not connect to it.
    #[error("cannot connect to {path}")]
    Connect {
        /// Its socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The connection failed.
    #[error("the connection to firelane-hostd failed")]
    Frame(#[from] FrameError),
    /// It refused.
    #[error("firelane-hostd refused")]
    Refused(#[from] Refusal),
    /// What it answered is no answer to what was asked.
    #[error("firelane-hostd answered something else than it was asked")]
    Unexpected,
}

impl CallError {
    /// What the user can do about it, where that is known.
    #[must_use]
    pub fn remedy(&self) -> Option<String> {
        match self {
            CallError::Refused(refusal) => refusal.remedy.clone(),
            CallError::Connect { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied => Some(
                    "have root add you to the group of its socket (usermod -aG firelane <user>), and log in again".into(),
                ),
                _ => Some("start firelane-hostd as root".into()),
            },
            CallError::Frame(_) | CallError::Unexpected => None,
        }
    }
}

/// A connection on which both sides agreed on a version. Dropped, it ends what was started over it.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    qemu: Option<PathBuf>,
    firecracker: Option<PathBuf>,
}

impl Client {
    /// Connects to the hostd that listens at `path`.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn connect(path: &Path) -> Result<Client, CallError> {
        let connected = UnixStream::connect(path);
        let stream = connected.map_err(|source| CallError::Connect {
            path: path.into(),
            source,
        })?;
        let mut client = Client {
            stream,
            qemu: None,
            firecracker: None,
        };
        let hello = Request::Hello {
            min: VERSION,
            max: VERSION,
        };
        match client.call(&hello, &[])? {
            (
                Reply::Welcome {
                    version: VERSION,
                    qemu,
                    firecracker,
                },
                _,
            ) => {
                client.qemu = qemu;
                client.firecracker = firecracker;
                Ok(client)
            }
            _ => Err(CallError::Unexpected),
        }
    }

    /// The QEMU that it starts, if it has one.
    #[must_use]
    pub fn qemu(&self) -> Option<&Path> {
        self.qemu.as_deref()
    }

    /// The Firecracker that it starts, if it has one.
    #[must_use]
    pub fn firecracker(&self) -> Option<&Path> {
        self.firecracker.as_deref()
    }

    /// The connection itself: whoever shuts it down ends what was started over it, from any thread.
    ///
    /// # Errors
    /// If there are too many descriptors.
    pub fn connection(&self) -> io::Result<UnixStream> {
        self.stream.try_clone()
    }

    /// Asks, and waits for the answer and what comes with it.
    ///
    /// # Errors
    /// [`CallError`]; a refusal is one.
    pub fn call(
        &mut self,
        request: &Request,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(Reply, Vec<OwnedFd>), CallError> {
        let bytes = serde_json::to_vec(request).expect("requests have keys that are text");
        let sent = frame::send(&self.stream, &bytes, descriptors);
        // One that was turned away is told so, and may find that out while it is still asking.
        let answer = match (frame::receive(&self.stream, Some(ANSWER_TIMEOUT)), sent) {
            (Ok(answer), _) => answer,
            (Err(_), Err(error)) | (Err(error), Ok(())) => return Err(error.into()),
        };
        let reply = serde_json::from_slice(&answer.bytes).map_err(|_| CallError::Unexpected)?;
        match reply {
            Reply::Refused(refusal) => Err(refusal.into()),
            reply => Ok((reply, answer.descriptors)),
        }
    }
}
