//! Hetzner Cloud as its API reference has it: an HTTP server with projects' things in memory. And what goes
//! wrong: calls that are refused, answers that are lost, cut or senseless, limits.
//!
//! | File | Holds |
//! | --- | --- |
//! | `mod.rs` | the server, its faults, and what was said |
//! | `world.rs` | what there is, and what calls do to it |
//! | `things.rs` | servers, firewalls and keys as answers have them |
//! | `catalog.rs` | locations, types, images and prices |

mod catalog;
mod things;
mod world;

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::AUTHORIZATION;
use hyper::http::request::Parts;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use self::world::World;
use super::Fault;

/// A token that may do everything.
pub const TOKEN: &str = "hushReadAndWrite";
/// A token that may only look.
pub const READER: &str = "hushReadOnly";
/// Which address is told to who asks for the own one.
const OPERATOR: &str = "198.51.100.99";
/// Calls of one hour.
const CALLS_AN_HOUR: u64 = 3_600;

/// One call, and what was answered.
#[derive(Clone, Debug, Serialize)]
pub struct Exchange {
    /// For example `POST`.
    pub method: String,
    /// Below the API's own path, for example `/servers/1`.
    pub path: String,
    /// Without `?`.
    pub query: String,
    /// Its body. Null: none.
    pub request: Value,
    /// Status of the answer.
    pub status: u16,
    /// Body of the answer. Null: none.
    pub answer: Value,
}

impl Exchange {
    /// As Firelane names calls: method and path, with `{id}` for numbers.
    #[must_use]
    pub fn call(&self) -> String {
        let parts = self.path.split('/').map(|part| {
            let is_number = part.parse::<u64>().is_ok();
            if is_number { "{id}" } else { part }
        });
        format!("{} {}", self.method, parts.collect::<Vec<_>>().join("/"))
    }
}

struct State {
    world: World,
    said: Vec<Exchange>,
    /// Calls so far.
    calls: usize,
    /// The next calls of a name that go wrong.
    faults: Vec<(String, Fault)>,
    /// The call with this number, from 0, goes wrong.
    nth: Option<(usize, Fault)>,
    /// Calls that are left in this hour.
    left: u64,
    /// Calls that wait for an answer for ever.
    unanswered: usize,
}

/// The server. It ends with its value.
pub struct HetznerCloud {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

impl Drop for HetznerCloud {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl HetznerCloud {
    /// An empty project, on a free port of the loopback.
    ///
    /// # Panics
    /// If there is no free port.
    pub async fn start() -> HetznerCloud {
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("there is a free port");
        let address = listener.local_addr().expect("it has an address");
        let state = Arc::new(Mutex::new(State {
            world: World::default(),
            said: Vec::new(),
            calls: 0,
            faults: Vec::new(),
            nth: None,
            left: CALLS_AN_HOUR,
            unanswered: 0,
        }));
        let task = tokio::spawn(serve(listener, state.clone()));
        HetznerCloud {
            address,
            state,
            task,
        }
    }

    /// Its address, for `FIRELANE_HETZNER_ENDPOINT` and the like.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// The next call with this name, for example `DELETE /servers/{id}`, goes wrong; called again, the one
    /// after it too.
    pub fn fail(&self, call: &str, fault: Fault) {
        self.state().faults.push((call.to_owned(), fault));
    }

    /// The call with this number, from 0, of those to come goes wrong.
    pub fn fail_nth(&self, number: usize, fault: Fault) {
        let mut state = self.state();
        let number = state.calls + number;
        state.nth = Some((number, fault));
    }

    /// Nothing goes wrong any more. Whether everything that was to go wrong has.
    #[must_use]
    pub fn mend(&self) -> bool {
        let mut state = self.state();
        let reached = state.nth.is_none_or(|(number, _)| number < state.calls);
        let done = reached && state.faults.is_empty();
        state.nth = None;
        state.faults.clear();
        done
    }

    /// What the next action with this command comes to, for example `create_server`: an error with this code.
    pub fn fail_action(&self, command: &str, code: &str) {
        let failing = (command.to_owned(), code.to_owned());
        self.state().world.failing.push(failing);
    }

    /// Lists have pages of this many things at most.
    pub fn pages_of(&self, things: usize) {
        self.state().world.page = things;
    }

    /// How many calls are left until one is refused; then the hour is over.
    pub fn calls_left(&self, calls: u64) {
        self.state().left = calls;
    }

    /// How many calls wait for an answer that never comes.
    #[must_use]
    pub fn unanswered(&self) -> usize {
        self.state().unanswered
    }

    /// Servers that there are, and that are made later, have this address in place of one that nobody has.
    pub fn servers_are_at(&self, address: &str) {
        self.state().world.move_to(address);
    }

    /// Whether what is being done goes on, with each look at it. At first it does.
    pub fn go_on(&self, goes_on: bool) {
        self.state().world.stands_still = !goes_on;
    }

    /// What was said since the last time.
    #[must_use]
    pub fn said(&self) -> Vec<Exchange> {
        std::mem::take(&mut self.state().said)
    }

    /// Names of the calls since the last time, without those that only look at what goes on.
    #[must_use]
    pub fn calls(&self) -> Vec<String> {
        self.said().iter().map(Exchange::call).collect()
    }

    /// How many servers, firewalls and keys there are.
    #[must_use]
    pub fn counts(&self) -> (usize, usize, usize) {
        let state = self.state();
        let world = &state.world;
        (world.servers.len(), world.firewalls.len(), world.keys.len())
    }

    /// Labels of everything that there is.
    #[must_use]
    pub fn labels(&self) -> Vec<Value> {
        self.state().world.labels()
    }

    /// Numbers of all servers.
    #[must_use]
    pub fn servers(&self) -> Vec<String> {
        let state = self.state();
        state.world.servers.keys().map(u64::to_string).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(listener: TcpListener, state: Arc<Mutex<State>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let state = state.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let state = state.clone();
                // An error cuts the connection, which is what some faults are.
                async move { answer(&state, request).await }
            });
            let serving = hyper::server::conn::http1::Builder::new();
            let _ = serving
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

/// An answer of the API: status, and body if there is one.
type Answer = (u16, Value);

/// A refusal in the API's form.
fn refusal(status: u16, code: &str, message: &str) -> Answer {
    let details = match code {
        "invalid_input" => json!({ "fields": [{ "name": "test", "messages": [message] }] }),
        _ => json!({}),
    };
    let error = json!({ "code": code, "message": message, "details": details });
    (status, json!({ "error": error }))
}

async fn answer(
    state: &Mutex<State>,
    request: Request<Incoming>,
) -> io::Result<Response<Full<Bytes>>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let Some(path) = head.uri.path().strip_prefix("/v1") else {
        return Ok(response(200, format!("{OPERATOR}\n"), CALLS_AN_HOUR));
    };
    let said = said(&mut lock(state), &head, path, &body);
    match said {
        Some(answer) => answer,
        None => pending().await,
    }
}

/// Does what a call asks for, or what it is to come to. None: there is no answer.
fn said(
    state: &mut State,
    head: &Parts,
    path: &str,
    body: &[u8],
) -> Option<io::Result<Response<Full<Bytes>>>> {
    let mut exchange = Exchange {
        method: head.method.to_string(),
        path: path.to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        request: serde_json::from_slice(body).unwrap_or_default(),
        status: 0,
        answer: Value::Null,
    };
    let fault = state.noted(&exchange.call());
    let token = head.headers.get(AUTHORIZATION);
    let token = token.and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let as_wanted = "as a test wants it";
    if let Some(Fault::Unheard) = fault {
        state.unanswered += 1;
        return None;
    }
    let (status, answer) = match fault {
        Some(Fault::Cut) => return Some(Err(io::ErrorKind::ConnectionReset.into())),
        Some(Fault::Refused(status, code)) => refusal(status, code, as_wanted),
        _ if state.left == 0 => {
            state.left = CALLS_AN_HOUR + 1;
            refusal(
                429,
                "rate_limit_exceeded",
                "limit of 3600 requests per hour reached",
            )
        }
        _ => match token {
            Some(TOKEN) => state.world.done(&exchange),
            Some(READER) if exchange.method == "GET" => state.world.done(&exchange),
            Some(READER) => refusal(403, "token_readonly", "the token is only allowed to read"),
            _ => refusal(401, "unauthorized", "unable to authenticate"),
        },
    };
    state.left = state.left.saturating_sub(1);
    let left = state.left;
    (exchange.status, exchange.answer) = (status, answer.clone());
    state.said.push(exchange);
    if let Some(Fault::Unanswered) = fault {
        state.unanswered += 1;
        return None;
    }
    Some(match fault {
        Some(Fault::Lost) => Err(io::ErrorKind::ConnectionReset.into()),
        Some(Fault::Senseless) => {
            let page = "<html><body>Welcome</body></html>".to_owned();
            Ok(response(200, page, left))
        }
        Some(Fault::NoIds) => Ok(response(status, text(&without_ids(answer)), left)),
        _ => Ok(response(status, text(&answer), left)),
    })
}

impl State {
    /// Whether this call goes wrong.
    fn noted(&mut self, call: &str) -> Option<Fault> {
        let number = self.calls;
        self.calls += 1;
        if let Some((_, fault)) = self.nth.filter(|(nth, _)| *nth == number) {
            return Some(fault);
        }
        let due = self.faults.iter().position(|(name, _)| name == call)?;
        Some(self.faults.remove(due).1)
    }
}

fn text(answer: &Value) -> String {
    match answer {
        Value::Null => String::new(),
        answer => answer.to_string(),
    }
}

/// Without what things are known by.
fn without_ids(answer: Value) -> Value {
    match answer {
        Value::Object(fields) => fields
            .into_iter()
            .filter(|(name, _)| !["id", "name", "currency"].contains(&name.as_str()))
            .map(|(name, value)| (name, without_ids(value)))
            .collect(),
        Value::Array(things) => things.into_iter().map(without_ids).collect(),
        other => other,
    }
}

fn response(status: u16, body: String, left: u64) -> Response<Full<Bytes>> {
    let response = Response::builder()
        .status(StatusCode::from_u16(status).expect("a status"))
        .header("content-type", "application/json")
        .header("RateLimit-Limit", CALLS_AN_HOUR)
        .header("RateLimit-Remaining", left.min(CALLS_AN_HOUR))
        .header("RateLimit-Reset", 1_795_003_600_u64);
    let response = response.body(Full::new(Bytes::from(body)));
    response.expect("its parts are right")
}
