//! A gateway, what it asked the other services, and requests to it.

use std::fmt::Debug;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::request::Builder;
use axum::http::{HeaderMap, Request, Response, StatusCode};
use firelane_gateway::listen::{Listener, serve};
use firelane_gateway::{Config, Gateway};
use firelane_store::bus::{Bus, LocalBus, Server};
use firelane_traces::Sink;
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::{agent, coordinator};

/// How long a test waits for a state before it fails.
const LIMIT: Duration = Duration::from_secs(20);
/// The secret of every key.
pub(crate) const SECRET: &str = "abababababababababababababababababababababababababababababababab";

/// Whose key a request has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum As {
    /// The owner of the sandbox, with the scope `sandbox`.
    Owner = 1,
    /// The same scope of another tenant.
    Stranger = 2,
    /// The owner's tenant, with the scope `run`.
    Runner = 3,
    /// The owner's tenant, with the scope `admin`.
    Admin = 4,
}

impl As {
    pub(crate) const ALL: [As; 4] = [As::Owner, As::Stranger, As::Runner, As::Admin];

    fn token(self) -> String {
        format!("Bearer key-{:032x}.{SECRET}", self as u128)
    }
}

/// What was asked of the fakes, in order, as text.
#[derive(Clone)]
pub(crate) struct Asked(Arc<watch::Sender<Vec<String>>>);

impl Asked {
    pub(crate) fn new() -> Asked {
        Asked(Arc::new(watch::Sender::new(Vec::new())))
    }

    pub(crate) fn note(&self, call: &impl Debug) {
        self.0.send_modify(|calls| calls.push(format!("{call:?}")));
    }

    /// Those whose text begins so.
    pub(crate) fn all(&self, beginning: &str) -> Vec<String> {
        let calls = self.0.borrow();
        let calls = calls.iter().filter(|call| call.starts_with(beginning));
        calls.cloned().collect()
    }

    /// Waits for a call whose text begins so.
    pub(crate) async fn until(&self, beginning: &str) -> String {
        self.until_count(beginning, 1).await.remove(0)
    }

    /// Waits for so many of them.
    pub(crate) async fn until_count(&self, beginning: &str, count: usize) -> Vec<String> {
        let mut seen = self.0.subscribe();
        let enough = |calls: &Vec<String>| {
            let of_kind = calls.iter().filter(|call| call.starts_with(beginning));
            of_kind.count() >= count
        };
        let waited = timeout(LIMIT, seen.wait_for(enough)).await;
        let all = self.0.borrow().clone();
        drop(waited.unwrap_or_else(|_| panic!("{count} of {beginning} were not asked: {all:?}")));
        self.all(beginning)
    }
}

/// The service. Everything ends when it is dropped.
pub(crate) struct Fake {
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) asked: Asked,
    _servers: Vec<Server>,
}

/// An answer that has arrived whole.
pub(crate) struct Told {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Told {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let value = self.headers.get(name)?;
        Some(value.to_str().expect("it is text"))
    }

    /// The code of a problem that has this status.
    pub(crate) fn code(&self, status: u16) -> String {
        let json = self.json();
        assert_eq!(self.status.as_u16(), status, "{json}");
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json")
        );
        json["code"].as_str().expect("it has a code").into()
    }
}

impl Fake {
    pub(crate) async fn start() -> Fake {
        Fake::start_with(true).await
    }

    /// The same, and whether API keys are needed.
    pub(crate) async fn start_with(keys: bool) -> Fake {
        let bus: Arc<dyn Bus> = Arc::new(LocalBus::new());
        let asked = Asked::new();
        let servers = vec![
            coordinator::serve(Arc::clone(&bus), asked.clone()).await,
            agent::serve(Arc::clone(&bus), asked.clone()).await,
        ];
        let config = Config {
            keys,
            owner: u32::MAX,
            traces: Sink::off(),
        };
        Fake {
            gateway: Gateway::new(config, bus, CancellationToken::new()),
            asked,
            _servers: servers,
        }
    }

    /// Listens on loopback until the guard is dropped; gives where.
    pub(crate) async fn listen(&self) -> (SocketAddr, DropGuard) {
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("there is a free port");
        let address = listener.local_addr().expect("it has an address");
        let (stop, router) = (CancellationToken::new(), self.gateway.router());
        let serving = serve(
            Listener::Plain(listener),
            router,
            stop.clone(),
            TaskTracker::new(),
        );
        tokio::spawn(serving);
        (address, stop.drop_guard())
    }

    /// The head of an answer, and its body to be read.
    pub(crate) async fn open(&self, request: Request<Body>) -> Response<Body> {
        let answer = timeout(LIMIT, self.gateway.router().oneshot(request)).await;
        let answer = answer.expect("it answers in time");
        answer.unwrap_or_else(|never| match never {})
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Told {
        let answer = self.open(request).await;
        let (head, body) = answer.into_parts();
        let body = timeout(LIMIT, body.collect()).await;
        let body = body.expect("it ends in time").expect("it is whole");
        assert!(head.headers.contains_key("server-timing"));
        Told {
            status: head.status,
            headers: head.headers,
            body: body.to_bytes().into(),
        }
    }

    pub(crate) async fn get(&self, path: &str, who: As) -> Told {
        self.ask("GET", path, who, None).await
    }

    pub(crate) async fn ask(&self, method: &str, path: &str, who: As, body: Option<&str>) -> Told {
        self.send(request(method, path, who, body)).await
    }

    pub(crate) async fn post(&self, path: &str, body: &str) -> Told {
        self.ask("POST", path, As::Owner, Some(body)).await
    }
}

pub(crate) fn head(method: &str, path: &str, who: As) -> Builder {
    Request::builder()
        .method(method)
        .uri(path)
        .header("authorization", who.token())
}

pub(crate) fn request(method: &str, path: &str, who: As, body: Option<&str>) -> Request<Body> {
    let head = head(method, path, who);
    let request = match body {
        Some(json) => head
            .header("content-type", "application/json")
            .body(Body::from(json.to_owned())),
        None => head.body(Body::empty()),
    };
    request.expect("it is a request")
}
