//! One request, one answer.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use firelane_model::id::{KeyId, RunId};
use firelane_wire::key::{Key, KeyMade, NewKey};
use firelane_wire::problem::Problem;
use firelane_wire::run::{Run, RunRequest};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::target::Target;

/// Most bytes of an answer: a run's output and files, as base64.
const MAX_ANSWER_BYTES: usize = 128 << 20;
/// How long an answer may take that does not wait for a program.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The service is not reached.
    #[error("cannot reach the service at {target}")]
    Connect {
        /// Where it should be.
        target: Target,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The service refused, and says why.
    #[error(transparent)]
    Refused(#[from] Problem),
    /// The answer broke off.
    #[error("the service's answer broke off")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The answer is not what the API says.
    #[error("the service answered with something else than its API says")]
    Unexpected(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// There was no answer in time.
    #[error("the service did not answer within {0:?}")]
    Silent(Duration),
}

/// An answer as it came.
#[derive(Debug)]
pub struct Raw {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// A client of one service. Every request has a connection of its own.
#[derive(Clone, Debug)]
pub struct Client {
    target: Target,
    token: Option<String>,
}

impl Client {
    /// A client with this API key, if one is needed.
    #[must_use]
    pub fn new(target: Target, token: Option<String>) -> Client {
        Client { target, token }
    }

    /// Where the service is.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    pub(crate) fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// Whether the service is there and takes work.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn ready(&self) -> Result<(), ClientError> {
        self.ask::<serde_json::Value>(Method::GET, "/readyz", None, &[])
            .await
            .map(drop)
    }

    /// Queues a run and does not wait for it.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn submit(&self, request: &RunRequest) -> Result<Run, ClientError> {
        let body = json(request)?;
        let headers = [("prefer", "respond-async")];
        self.ask(Method::POST, "/v1/runs", Some(body), &headers)
            .await
    }

    /// A run as it is now.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn run(&self, id: RunId) -> Result<Run, ClientError> {
        let path = format!("/v1/runs/{id}");
        self.ask(Method::GET, &path, None, &[]).await
    }

    /// Ends a run.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn cancel(&self, id: RunId) -> Result<Run, ClientError> {
        let path = format!("/v1/runs/{id}");
        self.ask(Method::DELETE, &path, None, &[]).await
    }

    /// Makes an API key.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn make_key(&self, key: &NewKey) -> Result<KeyMade, ClientError> {
        let body = json(key)?;
        self.ask(Method::POST, "/v1/keys", Some(body), &[]).await
    }

    /// All API keys.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn keys(&self) -> Result<Vec<Key>, ClientError> {
        self.ask(Method::GET, "/v1/keys", None, &[]).await
    }

    /// Ends an API key.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn revoke_key(&self, id: KeyId) -> Result<Key, ClientError> {
        let path = format!("/v1/keys/{id}");
        self.ask(Method::DELETE, &path, None, &[]).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
        headers: &[(&'static str, &str)],
    ) -> Result<T, ClientError> {
        let sent = self.send(method, path, body, headers);
        let raw = timeout(ANSWER_TIMEOUT, sent)
            .await
            .map_err(|_| ClientError::Silent(ANSWER_TIMEOUT))??;
        if raw.status.is_success() {
            return serde_json::from_slice(&raw.body)
                .map_err(|error| ClientError::Unexpected(error.into()));
        }
        match serde_json::from_slice::<Problem>(&raw.body) {
            Ok(problem) => Err(problem.into()),
            Err(error) => Err(ClientError::Unexpected(error.into())),
        }
    }

    /// Sends a request as it is; takes as long as the service takes.
    ///
    /// # Errors
    /// [`ClientError`], not for what the service refuses.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
        headers: &[(&'static str, &str)],
    ) -> Result<Raw, ClientError> {
        let response = self.open(method, path, body, headers).await?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
        Ok(Raw {
            status: parts.status,
            headers: parts.headers,
            body: body.map_err(ClientError::Broken)?.to_bytes(),
        })
    }

    /// The same, with the body still to be read.
    ///
    /// # Errors
    /// [`ClientError`], not for what the service refuses.
    pub async fn open(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
        headers: &[(&'static str, &str)],
    ) -> Result<Response<Incoming>, ClientError> {
        let stream = self.target.connect().await;
        let stream = stream.map_err(|source| ClientError::Connect {
            target: self.target.clone(),
            source,
        })?;
        let broken = |error: hyper::Error| ClientError::Broken(error.into());
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        // Ends with the sender and the body.
        tokio::spawn(connection);
        let request = self.request(method, path, body, headers)?;
        sender.send_request(request).await.map_err(broken)
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
        headers: &[(&'static str, &str)],
    ) -> Result<Request<Full<Bytes>>, ClientError> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, self.target.authority());
        if let Some(token) = &self.token {
            let value = HeaderValue::from_str(&format!("Bearer {token}"));
            let mut value = value.map_err(|error| ClientError::Unexpected(error.into()))?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = Full::new(body.unwrap_or_default());
        request
            .body(body)
            .map_err(|error| ClientError::Unexpected(error.into()))
    }
}

fn json(value: &impl Serialize) -> Result<Bytes, ClientError> {
    match serde_json::to_vec(value) {
        Ok(bytes) => Ok(bytes.into()),
        Err(error) => Err(ClientError::Unexpected(error.into())),
    }
}
