//! QEMU's monitor: commands and answers as JSON lines.
//!
//! Source: QEMU, `docs/interop/qmp-spec.rst` (7.2 and 10.0).

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

/// How long QEMU may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest line that is read, in bytes: answers are small, and QEMU may be in a guest's hands.
const MAX_LINE_BYTES: usize = 1 << 20;

/// Why the monitor did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// The connection failed.
    #[error("the monitor's connection failed")]
    Io(#[from] io::Error),
    /// It was closed.
    #[error("QEMU closed the monitor")]
    Closed,
    /// Nothing came back in time.
    #[error("QEMU did not answer {command} within {ANSWER_TIMEOUT:?}")]
    Silent {
        /// The command.
        command: &'static str,
    },
    /// The answer is not JSON of the expected form, or too long.
    #[error("QEMU's answer to {command} is malformed")]
    Malformed {
        /// The command.
        command: &'static str,
    },
    /// The command failed.
    #[error("{command}: {description}")]
    Refused {
        /// The command.
        command: &'static str,
        /// QEMU's reason.
        description: String,
    },
}

/// A line that QEMU sends. Events are passed over.
#[derive(Debug, Deserialize)]
struct Line {
    #[serde(rename = "QMP")]
    greeting: Option<Value>,
    #[serde(rename = "return")]
    result: Option<Value>,
    error: Option<Failure>,
}

#[derive(Debug, Deserialize)]
struct Failure {
    desc: String,
}

/// An open monitor.
#[derive(Debug)]
pub(super) struct Qmp {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

impl Qmp {
    /// Reads the greeting and leaves the negotiation mode.
    pub(super) async fn open(stream: UnixStream) -> Result<Qmp, QmpError> {
        let (reader, writer) = stream.into_split();
        let mut qmp = Qmp {
            reader: BufReader::new(reader),
            writer,
        };
        let greeting = qmp.read_line("the connection").await?;
        if greeting.greeting.is_none() {
            return Err(QmpError::Malformed {
                command: "the connection",
            });
        }
        qmp.command("qmp_capabilities").await?;
        Ok(qmp)
    }

    /// Gives a command without arguments; the answer's value.
    pub(super) async fn command(&mut self, command: &'static str) -> Result<Value, QmpError> {
        self.command_with(command, &json!({})).await
    }

    /// Gives a command; the answer's value.
    pub(super) async fn command_with(
        &mut self,
        command: &'static str,
        arguments: &Value,
    ) -> Result<Value, QmpError> {
        let line = line_of(command, arguments);
        self.writer.write_all(line.as_bytes()).await?;
        self.answer(command).await
    }

    /// Gives QEMU a copy of an open file, which later commands know by this name.
    pub(super) async fn give(&mut self, name: &str, file: BorrowedFd<'_>) -> Result<(), QmpError> {
        const COMMAND: &str = "getfd";
        let line = line_of(COMMAND, &json!({ "fdname": name }));
        let socket = self.writer.as_ref();
        let send = || {
            let descriptors = [file];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
            let bytes = [IoSlice::new(line.as_bytes())];
            Ok(sendmsg(
                socket,
                &bytes,
                &mut ancillary,
                SendFlags::NOSIGNAL,
            )?)
        };
        let sent = timeout(ANSWER_TIMEOUT, socket.async_io(Interest::WRITABLE, send));
        let sent = sent
            .await
            .map_err(|_| QmpError::Silent { command: COMMAND })??;
        // The descriptor went with the first byte.
        let rest = line.as_bytes().get(sent..).unwrap_or_default();
        self.writer.write_all(rest).await?;
        self.answer(COMMAND).await.map(drop)
    }

    async fn answer(&mut self, command: &'static str) -> Result<Value, QmpError> {
        loop {
            let line = self.read_line(command).await?;
            match (line.result, line.error) {
                (Some(value), _) => return Ok(value),
                (None, Some(failure)) => {
                    return Err(QmpError::Refused {
                        command,
                        description: failure.desc,
                    });
                }
                (None, None) => {}
            }
        }
    }

    async fn read_line(&mut self, command: &'static str) -> Result<Line, QmpError> {
        let read = async {
            let mut line = Vec::new();
            loop {
                let chunk = self.reader.fill_buf().await?;
                if chunk.is_empty() {
                    return Err(QmpError::Closed);
                }
                let end = chunk.iter().position(|byte| *byte == b'\n');
                let taken = end.map_or(chunk.len(), |end| end + 1);
                line.extend_from_slice(&chunk[..taken]);
                self.reader.consume(taken);
                if line.len() > MAX_LINE_BYTES {
                    return Err(QmpError::Malformed { command });
                }
                if end.is_some() {
                    return Ok(line);
                }
            }
        };
        let line = timeout(ANSWER_TIMEOUT, read)
            .await
            .map_err(|_| QmpError::Silent { command })??;
        serde_json::from_slice(&line).map_err(|_| QmpError::Malformed { command })
    }
}

fn line_of(command: &str, arguments: &Value) -> String {
    let mut line = json!({ "execute": command, "arguments": arguments }).to_string();
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn against(script: &'static str) -> Result<Value, QmpError> {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        tokio::spawn(async move {
            theirs.write_all(script.as_bytes()).await.unwrap();
            let mut sink = Vec::new();
            tokio::io::copy(&mut theirs, &mut sink).await.unwrap();
        });
        Qmp::open(ours).await?.command("stop").await
    }

    #[tokio::test]
    async fn events_between_answers_are_passed_over() {
        let script = concat!(
            "{\"QMP\": {\"version\": {}}}\n",
            "{\"return\": {}}\n",
            "{\"event\": \"STOP\", \"data\": {}}\n",
            "{\"return\": {\"ok\": true}}\n",
        );
        assert_eq!(against(script).await.unwrap(), json!({ "ok": true }));
    }

    #[tokio::test]
    async fn failures_carry_qemus_reason() {
        let script = concat!(
            "{\"QMP\": {}}\n",
            "{\"return\": {}}\n",
            "{\"error\": {\"class\": \"GenericError\", \"desc\": \"no\"}}\n",
        );
        assert_eq!(against(script).await.unwrap_err().to_string(), "stop: no");
        assert!(matches!(
            against("garbage\n").await,
            Err(QmpError::Malformed { .. })
        ));
        assert!(matches!(
            against("{}\n").await,
            Err(QmpError::Malformed { .. })
        ));
    }
}
