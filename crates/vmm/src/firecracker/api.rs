//! Firecracker's API: HTTP over its Unix socket, one request at a time.
//!
//! Source: Firecracker, `src/firecracker/swagger/firecracker.yaml`, v1.16.1. Success is 204 without a body,
//! or 200 with one; everything else has a `fault_message`. The server takes ten connections and one
//! request at a time, so each microVM has one connection, on which requests wait for each other.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::requests::Fault;

/// How long a request that only changes the configuration may take.
pub(super) const QUICK: Duration = Duration::from_secs(5);
/// Largest answer that is read, in bytes.
const MAX_ANSWER_BYTES: usize = 64 << 10;
/// Longest fault that is passed on, in characters.
const MAX_FAULT: usize = 1000;
/// Wait between two tries to connect while the VMM starts.
const RETRY: Duration = Duration::from_micros(200);

/// Why a request was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The socket does not accept.
    #[error("cannot connect to {path}")]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The process ended before it listened.
    #[error("it ended before it listened")]
    Ended,
    /// The connection failed, or what came back is not HTTP.
    #[error("{request}: the connection failed")]
    Connection {
        /// Method and path.
        request: String,
        /// Why.
        #[source]
        source: hyper::Error,
    },
    /// Nothing came back in time.
    #[error("{request}: no answer within {limit:?}")]
    Silent {
        /// Method and path.
        request: String,
        /// The time it had.
        limit: Duration,
    },
    /// The answer is too long, or not of the expected form.
    #[error("{request}: the answer is malformed")]
    Malformed {
        /// Method and path.
        request: String,
    },
    /// Firecracker refused.
    #[error("{request}: {fault} (HTTP {status})")]
    Refused {
        /// Method and path.
        request: String,
        /// HTTP status.
        status: u16,
        /// Firecracker's reason.
        fault: String,
    },
    /// The request has no JSON form.
    #[error("{request}: the request cannot be written")]
    Unwritable {
        /// Method and path.
        request: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// A connection.
pub(super) struct Api {
    sender: SendRequest<Full<Bytes>>,
    connection: JoinHandle<()>,
    /// While the microVM starts, no answer is waited for beyond this.
    deadline: Option<Instant>,
}

impl Api {
    /// Connects, again and again until `deadline`: the socket exists before it listens.
    pub(super) async fn connect(path: &Path, deadline: Instant) -> Result<Api, ApiError> {
        let unreachable = |source| ApiError::Unreachable {
            path: path.into(),
            source,
        };
        let stream = loop {
            match UnixStream::connect(path).await {
                Ok(stream) => break stream,
                Err(source) if Instant::now() + RETRY >= deadline => {
                    return Err(unreachable(source));
                }
                Err(_) => sleep(RETRY).await,
            }
        };
        let shaken = handshake(TokioIo::new(stream)).await;
        let (sender, connection) = shaken.map_err(|source| ApiError::Connection {
            request: "the first connection".into(),
            source,
        })?;
        let connection = tokio::spawn(async move {
            // Whoever waits for an answer is told of the failure.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the connection to Firecracker ended");
            }
        });
        Ok(Api {
            sender,
            connection,
            deadline: Some(deadline),
        })
    }

    /// The microVM has started: from here on each request has its own limit only.
    pub(super) fn started(&mut self) {
        self.deadline = None;
    }

    /// `PUT path`.
    pub(super) async fn put(
        &mut self,
        path: &str,
        body: &impl Serialize,
        limit: Duration,
    ) -> Result<(), ApiError> {
        self.request(&Method::PUT, path, body, limit).await
    }

    /// `PATCH path`.
    pub(super) async fn patch(
        &mut self,
        path: &str,
        body: &impl Serialize,
        limit: Duration,
    ) -> Result<(), ApiError> {
        self.request(&Method::PATCH, path, body, limit).await
    }

    async fn request(
        &mut self,
        method: &Method,
        path: &str,
        body: &impl Serialize,
        limit: Duration,
    ) -> Result<(), ApiError> {
        let name = || format!("{method} {path}");
        let left = self.deadline.map(|deadline| deadline - Instant::now());
        let limit = left.map_or(limit, |left| left.min(limit));
        let body = serde_json::to_vec(body).map_err(|source| ApiError::Unwritable {
            request: name(),
            source,
        })?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "localhost")
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .expect("paths and headers are ours");
        let exchange = async {
            let failed = |source| ApiError::Connection {
                request: name(),
                source,
            };
            self.sender.ready().await.map_err(failed)?;
            let response = self.sender.send_request(request).await.map_err(failed)?;
            judge(name(), response).await
        };
        timeout(limit, exchange).await.unwrap_or_else(|_| {
            Err(ApiError::Silent {
                request: name(),
                limit,
            })
        })
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

async fn judge(request: String, response: Response<Incoming>) -> Result<(), ApiError> {
    let status = response.status();
    if status == StatusCode::NO_CONTENT {
        return Ok(());
    }
    let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES);
    let Ok(body) = body.collect().await else {
        return Err(ApiError::Malformed { request });
    };
    if status == StatusCode::OK {
        return Ok(());
    }
    match serde_json::from_slice::<Fault>(&body.to_bytes()) {
        Ok(Fault { fault_message }) => Err(ApiError::Refused {
            request,
            status: status.as_u16(),
            fault: clean(&fault_message),
        }),
        Err(_) => Err(ApiError::Malformed { request }),
    }
}

/// Fit for one line of ours: short, and without anything that steers a terminal.
fn clean(text: &str) -> String {
    let plain = text.chars().filter(|c| !c.is_control());
    plain.take(MAX_FAULT).collect()
}
