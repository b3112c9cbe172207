//! A gateway whose coordinator is a few lists.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::http::request::Builder;
use axum::http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use firelane_gateway::listen::Peer;
use firelane_gateway::{Config, Gateway};
use firelane_model::id::{KeyId, RunId};
use firelane_store::bus::{Bus, LocalBus, Server};
use firelane_traces::Sink;
use firelane_wire::bus::{FindKey, GetRun, KeyFound, ListHosts, ListRuns, LookQueue, ReadRun};
use firelane_wire::event::{End, Event, LogPage};
use firelane_wire::host::Host;
use firelane_wire::key::{Key, KeyLimits, Scope};
use firelane_wire::page::Page;
use firelane_wire::problem::Problem;
use firelane_wire::queue::Queue;
use firelane_wire::run::{Ending, Ran, Run};
use http_body_util::BodyExt;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// User who owns the service.
pub(crate) const OWNER: u32 = 4711;

/// What the coordinator says.
#[derive(Default)]
pub(crate) struct Said {
    pub(crate) hosts: Vec<Host>,
    pub(crate) runs: Vec<Run>,
    /// The log of every run.
    pub(crate) log: Vec<Event>,
    pub(crate) keys: Vec<KeyFound>,
    /// How many logs were read.
    pub(crate) reads: usize,
}

/// A gateway, and what its coordinator says.
pub(crate) struct Service {
    gateway: Arc<Gateway>,
    pub(crate) said: Arc<Mutex<Said>>,
    _server: Server,
}

/// An answer, whole.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.map_or("", |value| value.to_str().expect("it is text"))
    }

    /// What the browser sends back.
    pub(crate) fn cookie(&self) -> String {
        let cookie = self.header("set-cookie").split(';').next();
        cookie.unwrap_or_default().to_owned()
    }
}

impl Service {
    pub(crate) async fn start(keys: bool) -> Service {
        let said = Arc::new(Mutex::new(Said::default()));
        let bus: Arc<dyn Bus> = Arc::new(LocalBus::new());
        let server = coordinator(Arc::clone(&bus), &said).await;
        let config = Config {
            keys,
            owner: OWNER,
            traces: Sink::off(),
        };
        Service {
            gateway: Gateway::new(config, bus, CancellationToken::new()),
            said,
            _server: server,
        }
    }

    pub(crate) fn say(&self, change: impl FnOnce(&mut Said)) {
        change(&mut self.said.lock().expect("nobody panicked"));
    }

    pub(crate) async fn ask(&self, request: Builder, body: &str) -> Answer {
        let request = request.body(Body::from(body.to_owned()));
        let mut request: Request<Body> = request.expect("it is a request");
        let host = HeaderValue::from_static("localhost");
        request.headers_mut().entry(header::HOST).or_insert(host);
        if request.extensions().get::<Peer>().is_none() {
            let somewhere = SocketAddr::from(([127, 0, 0, 1], 1));
            request.extensions_mut().insert(Peer::Network {
                from: somewhere,
                to: somewhere,
            });
        }
        let answer = self.gateway.router().oneshot(request).await;
        whole(answer.unwrap_or_else(|never| match never {})).await
    }

    /// As a browser asks that was told to by its user or by our own page.
    pub(crate) async fn get(&self, path: &str, cookie: &str) -> Answer {
        let request = Request::get(path).header("host", "localhost");
        let request = request.header("sec-fetch-site", "same-origin");
        self.ask(request.header("cookie", cookie), "").await
    }

    /// As a browser sends the form.
    pub(crate) async fn log_in(&self, token: &str) -> Answer {
        let request = Request::post("/login").header("sec-fetch-site", "same-origin");
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        self.ask(request, &format!("key={token}")).await
    }

    /// A key with these scopes; gives its token.
    pub(crate) fn key(&self, number: u128, scopes: &[Scope]) -> String {
        let secret = "5a".repeat(32);
        let id = KeyId::from_bits(number);
        let key = Key {
            id,
            name: "test".into(),
            tenant: "test".into(),
            scopes: scopes.iter().copied().collect(),
            weight: 1,
            limits: KeyLimits::default(),
            created_at: "2026-01-01T00:00:00Z".into(),
            revoked_at: None,
        };
        let secret_hash = *blake3::hash(secret.as_bytes()).as_bytes();
        self.say(|said| said.keys.push(KeyFound { key, secret_hash }));
        format!("{id}.{secret}")
    }
}

async fn whole(answer: Response<Body>) -> Answer {
    let (parts, body) = answer.into_parts();
    let bytes = body.collect().await.expect("a whole body").to_bytes();
    Answer {
        status: parts.status,
        headers: parts.headers,
        text: String::from_utf8(bytes.into()).expect("it is text"),
    }
}

async fn coordinator(bus: Arc<dyn Bus>, said: &Arc<Mutex<Said>>) -> Server {
    macro_rules! serve {
        ($server:ident, $($call:ty => $answer:expr),+ $(,)?) => {$({
            let said = Arc::clone(said);
            let answer = move |call: $call| {
                let mut said = said.lock().expect("nobody panicked");
                let answer: fn(&mut Said, $call) -> _ = $answer;
                std::future::ready(answer(&mut said, call))
            };
            $server.on(answer).await.expect("it is served");
        })+};
    }
    let mut server = Server::new(bus, "coordinator");
    serve!(server,
        ListHosts => |said, _| Ok(said.hosts.clone()),
        LookQueue => |_, _| Ok(queue()),
        ListRuns => |said, _| Ok(Page { items: said.runs.clone(), next_cursor: None }),
        GetRun => |said, call| {
            let found = said.runs.iter().find(|run| run.id == call.id);
            found.cloned().ok_or_else(|| Problem::not_found("run", call.id))
        },
        ReadRun => |said, call| {
            said.reads += 1;
            let numbered = (1..).zip(said.log.clone());
            let events = numbered.filter(|(number, _)| *number > call.read.after).collect();
            Ok(LogPage { events, gap: None, end: true })
        },
        FindKey => |said, call| Ok(said.keys.iter().find(|found| found.key.id == call.id).cloned()),
    );
    server
}

fn queue() -> Queue {
    Queue {
        queued: 3,
        capacity: 100,
        yours: 1,
        capacity_per_tenant: 50,
        running: 2,
        slots: 4,
        eta_ms: 1500,
    }
}

/// A run that is over.
pub(crate) fn run(number: u128) -> Run {
    let json = serde_json::json!({
        "id": RunId::from_bits(number).to_string(), "state": "done", "lang": "python",
        "template": "default", "created_at": "2026-01-01T00:00:00Z",
        "started_at": "2026-01-01T00:00:01Z", "finished_at": "2026-01-01T00:00:03.5Z",
        "labels": {},
    });
    serde_json::from_value(json).expect("it is a run")
}

/// How it ended.
pub(crate) fn ended(exit_code: i32, phases_ms: &[(&str, f64)]) -> Event {
    let ending = Ending {
        exit_code,
        ..Ending::default()
    };
    let phases_ms = phases_ms.iter().map(|(name, at)| ((*name).into(), *at));
    let ran = Ran {
        host: "fake".into(),
        phases_ms: phases_ms.collect(),
        ..Ran::default()
    };
    Event::Ended(Box::new(End::Done { ending, ran }))
}
