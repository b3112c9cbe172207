//! A run's events and its input, over a WebSocket.

use firelane_model::id::RunId;
use firelane_wire::content::Content;
use firelane_wire::event::EventData;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use serde::Deserialize;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{self, Message};

use crate::client::{Client, ClientError};
use crate::target::Stream;

/// One event.
#[derive(Debug, Deserialize)]
pub struct Told {
    /// Its name.
    pub event: String,
    /// Its number in the run's log.
    #[serde(default)]
    pub id: Option<u64>,
    /// What it says.
    #[serde(flatten)]
    pub data: EventData,
}

/// The events of a run.
pub struct Events(SplitStream<WebSocketStream<Stream>>);

/// The input of a run.
pub struct Input(SplitSink<WebSocketStream<Stream>, Message>);

/// Attaches to a run.
///
/// # Errors
/// [`ClientError`].
pub async fn attach(client: &Client, id: RunId) -> Result<(Events, Input), ClientError> {
    let target = client.target();
    let stream = target.connect().await;
    let stream = stream.map_err(|source| ClientError::Connect {
        target: target.clone(),
        source,
    })?;
    let uri = format!("ws://{}/v1/runs/{id}/ws", target.authority());
    let mut request = uri.into_client_request().map_err(broken)?;
    if let Some(token) = client.token() {
        let value = HeaderValue::from_str(&format!("Bearer {token}"));
        let value = value.map_err(|error| ClientError::Unexpected(error.into()))?;
        request.headers_mut().insert("authorization", value);
    }
    let (socket, _) = tokio_tungstenite::client_async(request, stream)
        .await
        .map_err(broken)?;
    let (input, events) = socket.split();
    Ok((Events(events), Input(input)))
}

fn broken(error: tungstenite::Error) -> ClientError {
    ClientError::Broken(error.into())
}

impl Events {
    /// The next one; nothing after the last.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn next(&mut self) -> Result<Option<Told>, ClientError> {
        loop {
            match self.0.next().await {
                None | Some(Ok(Message::Close(_))) => return Ok(None),
                Some(Ok(Message::Text(text))) => {
                    let told = serde_json::from_str(&text);
                    return told
                        .map(Some)
                        .map_err(|error| ClientError::Unexpected(error.into()));
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(broken(error)),
            }
        }
    }
}

impl Told {
    /// The bytes that it carries.
    ///
    /// # Errors
    /// [`ClientError::Unexpected`].
    pub fn bytes(&mut self) -> Result<Vec<u8>, ClientError> {
        if let Some(text) = self.data.text.take() {
            return Ok(text.into_bytes());
        }
        let base64 = self.data.base64.take().unwrap_or_default();
        Content::Base64 { base64 }
            .into_bytes()
            .map_err(|error| ClientError::Unexpected(error.into()))
    }
}

impl Input {
    /// Sends bytes to the program's standard input.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn stdin(&mut self, bytes: Vec<u8>) -> Result<(), ClientError> {
        let message = Message::Binary(bytes.into());
        self.0.send(message).await.map_err(broken)
    }

    /// Ends the program's standard input.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn end(&mut self) -> Result<(), ClientError> {
        let message = Message::Text("{\"type\":\"end\"}".into());
        self.0.send(message).await.map_err(broken)
    }
}
