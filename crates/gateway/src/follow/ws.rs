//! A log and the input of its program over one WebSocket (RFC 6455).
//!
//! Out: each event as a text message, the JSON that server-sent events carry, with `event` and `id`.
//! In: text messages as [`Command`]; binary messages are bytes for standard input.

use std::time::Duration;

use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use firelane_wire::content::Content;
use firelane_wire::event::{EventData, Input, ReadLog};
use firelane_wire::problem::{Code, Problem};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::Log;
use super::events::gap;
use crate::failure::Answer;

/// What a request for a WebSocket is taken as.
pub(crate) type Upgrade = Result<WebSocketUpgrade, WebSocketUpgradeRejection>;

/// Largest message from a client, in bytes.
const MAX_MESSAGE_BYTES: usize = 256 << 10;
/// How long is waited for more at a time, in milliseconds.
const WAIT_MS: u64 = 15_000;
/// Bytes of a log that are read at once.
const PAGE_BYTES: u64 = 64 << 10;

/// How long a client may take to close its side after the end.
const CLOSING: Duration = Duration::from_secs(5);

/// What a client sends.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
enum Command {
    /// Bytes for standard input.
    Stdin { content: Content },
    /// The end of standard input.
    End {},
    /// A signal.
    Signal { signal: u8 },
    /// The terminal's new size.
    Resize { rows: u16, cols: u16 },
}

/// What a client gets.
#[derive(Debug, Serialize)]
struct Told<'a> {
    event: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<u64>,
    #[serde(flatten)]
    data: EventData,
}

/// Opens the WebSocket.
pub(crate) fn upgrade(log: Log, upgrade: Upgrade) -> Answer<Response> {
    let upgrade = upgrade.map_err(|error| Problem::new(Code::Invalid, error.body_text()))?;
    let upgrade = upgrade.max_message_size(MAX_MESSAGE_BYTES);
    Ok(upgrade.on_upgrade(move |client| async move {
        let (to_client, mut from_client) = client.split();
        let socket = Socket {
            log,
            started: Notify::new(),
        };
        // The program's end ends the socket; a client that leaves ends it too, and the program goes on.
        tokio::select! {
            () = socket.tell(to_client) => {}
            () = socket.hear(&mut from_client) => return,
        }
        // What the client still sends is read: a socket that is closed with something unread can
        // lose what the client has not read yet.
        let leaving = async { while let Some(Ok(_)) = from_client.next().await {} };
        if timeout(CLOSING, leaving).await.is_err() {
            tracing::debug!("a client keeps its WebSocket open after the end");
        }
    }))
}

struct Socket {
    log: Log,
    /// A microVM has it: before, nobody takes input.
    started: Notify,
}

impl Socket {
    async fn tell(&self, mut client: SplitSink<WebSocket, Message>) {
        let mut after = 0;
        loop {
            let read = ReadLog {
                after,
                max_bytes: PAGE_BYTES,
                wait_ms: WAIT_MS,
                whole: false,
            };
            let page = match self.log.read(read).await {
                Ok(page) => page,
                Err(problem) => {
                    let data = EventData {
                        problem: Some(problem),
                        ..EventData::default()
                    };
                    let _ = client.send(message("problem", None, data)).await;
                    break;
                }
            };
            if let Some((first, last)) = page.gap {
                after = last;
                let told = message("gap", Some(last), gap(first, last));
                if client.send(told).await.is_err() {
                    return;
                }
            }
            for (number, event) in page.events {
                after = number;
                let name = event.name();
                // Kept for whoever asks later.
                self.started.notify_one();
                let told = message(name, Some(number), event.shown());
                if client.send(told).await.is_err() {
                    return;
                }
            }
            if page.end {
                break;
            }
            if client
                .send(Message::Ping(axum::body::Bytes::new()))
                .await
                .is_err()
            {
                return;
            }
        }
        // The client may have closed it first.
        let _ = client.close().await;
    }

    /// Passes on input until the client leaves. What the program does not take is dropped: what the
    /// client is told does not end with it.
    async fn hear(&self, client: &mut SplitStream<WebSocket>) {
        self.started.notified().await;
        let mut taken = true;
        while let Some(Ok(message)) = client.next().await {
            let input = match message {
                Message::Text(text) => input(&text),
                Message::Binary(bytes) => Ok(Input::Stdin(bytes.into())),
                Message::Close(_) => return,
                Message::Ping(_) | Message::Pong(_) => continue,
            };
            if !taken {
                continue;
            }
            let sent = match input {
                Ok(input) => self.log.feed(input).await,
                Err(problem) => Err(problem),
            };
            if let Err(problem) = sent {
                tracing::debug!(%problem, "input over a WebSocket was refused");
                taken = false;
            }
        }
    }
}

fn input(text: &str) -> Result<Input, Problem> {
    let command: Command = serde_json::from_str(text)
        .map_err(|error| Problem::new(Code::Invalid, error.to_string()))?;
    Ok(match command {
        Command::Stdin { content } => {
            let bytes = content.into_bytes();
            Input::Stdin(bytes.map_err(|error| Problem::new(Code::Invalid, error.to_string()))?)
        }
        Command::End {} => Input::End,
        Command::Signal { signal } => Input::Signal(signal),
        Command::Resize { rows, cols } => Input::Resize { rows, cols },
    })
}

fn message(event: &str, id: Option<u64>, data: EventData) -> Message {
    let told = Told { event, id, data };
    // Strings and numbers: this cannot fail.
    Message::Text(serde_json::to_string(&told).unwrap_or_default().into())
}
