//! Connections to a port of the guest, through the microVM's Unix socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use firelane_guest_proto::handshake::{MAX_LINE_BYTES, connect_line, parse_ok};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, timeout_at};

/// Wait between two tries while the guest boots.
const RETRY: Duration = Duration::from_millis(10);
/// How long one handshake may be silent: until a guest's driver is up, nothing comes back at all.
const SILENCE: Duration = Duration::from_secs(2);

/// Why a port could not be connected to.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The Unix socket does not accept.
    #[error("cannot reach the microVM at {path}")]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The connection was closed without an answer: nobody listens on the port.
    #[error("the guest refused a connection to port {port}")]
    Refused {
        /// The port.
        port: u32,
    },
    /// Nothing came back in time.
    #[error("the guest did not answer a connection to port {port} in time")]
    Silent {
        /// The port.
        port: u32,
    },
    /// The connection was closed in the middle of the answer.
    #[error("the connection to port {port} was closed during the handshake")]
    Closed {
        /// The port.
        port: u32,
    },
    /// The answer is not the handshake's.
    #[error("the answer to a connection to port {port} is malformed")]
    Malformed {
        /// The port.
        port: u32,
    },
}

/// Connects to `port`, trying again until `deadline`: while the guest boots, silence and refusal
/// pass. The error is that of the last try that the deadline did not cut short.
///
/// # Errors
/// [`ConnectError`].
pub async fn connect(
    vsock: &Path,
    port: u32,
    deadline: Instant,
) -> Result<UnixStream, ConnectError> {
    let mut before = None;
    loop {
        let error = match attempt(vsock, port, deadline.min(Instant::now() + SILENCE)).await {
            Ok(stream) => return Ok(stream),
            Err(ConnectError::Silent { .. }) if Instant::now() >= deadline => {
                return Err(before.unwrap_or(ConnectError::Silent { port }));
            }
            Err(error) => error,
        };
        if matches!(error, ConnectError::Malformed { .. }) || Instant::now() + RETRY >= deadline {
            return Err(error);
        }
        before = Some(error);
        sleep(RETRY).await;
    }
}

async fn attempt(vsock: &Path, port: u32, deadline: Instant) -> Result<UnixStream, ConnectError> {
    match timeout_at(deadline, handshake(vsock, port)).await {
        Ok(result) => result,
        Err(_) => Err(ConnectError::Silent { port }),
    }
}

async fn handshake(vsock: &Path, port: u32) -> Result<UnixStream, ConnectError> {
    let unreachable = |source| ConnectError::Unreachable {
        path: vsock.into(),
        source,
    };
    let mut stream = UnixStream::connect(vsock).await.map_err(unreachable)?;
    stream
        .write_all(connect_line(port).as_bytes())
        .await
        .map_err(unreachable)?;
    // Byte by byte: what follows the line belongs to the connection.
    let mut line = Vec::with_capacity(MAX_LINE_BYTES);
    while line.last() != Some(&b'\n') {
        if line.len() >= MAX_LINE_BYTES {
            return Err(ConnectError::Malformed { port });
        }
        match stream.read_u8().await {
            Ok(byte) => line.push(byte),
            Err(_) if line.is_empty() => return Err(ConnectError::Refused { port }),
            Err(_) => return Err(ConnectError::Closed { port }),
        }
    }
    match parse_ok(&line) {
        Ok(_) => Ok(stream),
        Err(_) => Err(ConnectError::Malformed { port }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::UnixListener;

    /// One connection to a server that answers with `answer`, then closes or stays silent.
    async fn against(answer: &'static [u8], close: bool) -> Result<UnixStream, ConnectError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("v.sock");
        let listener = UnixListener::bind(&path).unwrap();
        tokio::spawn(async move {
            let mut kept = Vec::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut line = [0; 13];
                stream.read_exact(&mut line).await.unwrap();
                assert_eq!(&line, b"CONNECT 5001\n");
                stream.write_all(answer).await.unwrap();
                if !close {
                    kept.push(stream);
                }
            }
        });
        connect(&path, 5001, Instant::now() + Duration::from_millis(50)).await
    }

    #[tokio::test]
    async fn refused_silent_closed_and_malformed_are_told_apart() {
        assert!(against(b"OK 7\n", false).await.is_ok());
        assert!(matches!(
            against(b"", true).await,
            Err(ConnectError::Refused { port: 5001 })
        ));
        assert!(matches!(
            against(b"", false).await,
            Err(ConnectError::Silent { .. })
        ));
        assert!(matches!(
            against(b"OK ", true).await,
            Err(ConnectError::Closed { .. })
        ));
        assert!(matches!(
            against(b"NO 7\n", false).await,
            Err(ConnectError::Malformed { .. })
        ));
        let endless = against(&[b'O'; 100], false).await;
        assert!(matches!(endless, Err(ConnectError::Malformed { .. })));
        let missing = connect(Path::new("/nonexistent"), 1, Instant::now()).await;
        assert!(matches!(missing, Err(ConnectError::Unreachable { .. })));
    }

    #[tokio::test]
    async fn bytes_right_behind_the_answer_belong_to_the_connection() {
        let mut stream = against(b"OK 7\nhello", true).await.unwrap();
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "hello");
    }
}
