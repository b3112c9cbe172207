//! Gateway and coordinator in this process, and a host that only says that it ran something.
//!
//! The code of a run tells the host what to do with it:
//!
//! | code | the host |
//! | --- | --- |
//! | `hold` | keeps it until it is told to let go, or the run is stopped |
//! | `break` | says that it could not run it |
//! | `stream` | says that it wrote `first` to stdout; then `last` to stderr, once it may let go |
//! | other | says that it wrote its own code to stdout |

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::http::{Request, Response, StatusCode};
use firelane_coordinator::{Config, Coordinator};
use firelane_gateway::Gateway;
use firelane_model::sandbox::Reason;
use firelane_store::bus::{Bus, Calls, LocalBus, Server};
use firelane_store::db::Db;
use firelane_wire::bus::{
    Caller, ChangeSandbox, CreateSandbox, FollowRun, LookSandbox, MakeKey, MakeSandbox, ReportHost,
    SandboxChange, SandboxOrder, SandboxSeen, StartRun, StopRun, TellSandbox,
};
use firelane_wire::content::Content;
use firelane_wire::event::{End, Event, LogPage};
use firelane_wire::host::{Host, Pool};
use firelane_wire::key::{KeyLimits, NewKey, Scope};
use firelane_wire::problem::{Code, Problem};
use firelane_wire::run::{Ending, Origin, Ran};
use firelane_wire::sandbox::{Sandbox, SandboxState};
use http_body_util::BodyExt;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

const HOST: &str = "fake";

/// The service. Everything ends when it is dropped.
pub(crate) struct Service {
    pub(crate) gateway: Arc<Gateway>,
    coordinator: Calls,
    /// Lets go of what is held.
    pub(crate) let_go: watch::Sender<bool>,
    _servers: [Server; 2],
    _files: TempDir,
}

impl Service {
    /// A service whose only host runs so many at once, and whose queue takes so many.
    pub(crate) async fn start(slots: u32, queue: usize) -> Service {
        Service::start_with(slots, queue, false).await
    }

    /// The same, and whether API keys are needed.
    pub(crate) async fn start_with(slots: u32, queue: usize, keys: bool) -> Service {
        let files = tempfile::tempdir().expect("there is room");
        let bus: Arc<dyn Bus> = Arc::new(LocalBus::new());
        let db = Db::open(&files.path().join("db"))
            .await
            .expect("a database");
        let config = Config {
            queue,
            queue_per_tenant: queue,
        };
        let coordinator = Coordinator::new(config, Arc::clone(&bus), db).await;
        let coordinator = coordinator.expect("a coordinator");
        let serving = coordinator.serve().await.expect("it serves");
        let (let_go, held) = watch::channel(false);
        let host = host(Arc::clone(&bus), held).await;
        let config = firelane_gateway::Config {
            keys,
            owner: u32::MAX,
        };
        let calls = Calls::of(Arc::clone(&bus), "coordinator");
        let gateway = Gateway::new(config, bus, CancellationToken::new());
        gateway.show(|registry| coordinator.register(registry));
        let service = Service {
            gateway,
            coordinator: calls,
            let_go,
            _servers: [serving, host],
            _files: files,
        };
        service.report(slots, Vec::new()).await;
        service
    }

    /// The host tells how it is. After ten seconds without a word it gets no work.
    pub(crate) async fn report(&self, slots: u32, pools: Vec<Pool>) {
        let host = Host {
            id: HOST.into(),
            driver: "qemu".into(),
            acceleration: "tcg".into(),
            slots,
            running: 0,
            sandboxes: 0,
            pools,
            version: "1".into(),
        };
        let draining = false;
        let reported = self.coordinator.ask(&ReportHost { host, draining }).await;
        reported.expect("it is taken");
    }

    /// Makes an API key that allows everything.
    pub(crate) async fn key(&self) -> String {
        let key = NewKey {
            name: "all".into(),
            tenant: None,
            scopes: [Scope::Admin].into(),
            weight: None,
            limits: KeyLimits::default(),
        };
        let actor = "test".into();
        let made = self.coordinator.ask(&MakeKey { actor, key }).await;
        made.expect("it is made").token
    }

    /// Makes a sandbox, as the gateway asks for it.
    pub(crate) async fn make_sandbox(&self) -> Sandbox {
        let request = serde_json::from_str("{}").expect("it is a request");
        let caller = owner();
        let call = CreateSandbox { caller, request };
        let made = self.coordinator.ask(&call).await;
        made.expect("it is made")
    }

    /// Destroys a sandbox, as the gateway asks for it.
    pub(crate) async fn destroy_sandbox(&self, sandbox: &Sandbox) {
        let call = ChangeSandbox {
            caller: owner(),
            id: sandbox.id,
            change: SandboxChange::Destroy,
        };
        let ended = self.coordinator.ask(&call).await.expect("it is destroyed");
        assert_eq!(ended.state, SandboxState::Destroyed);
    }

    /// Asks over HTTP.
    pub(crate) async fn ask(&self, request: Request<Body>) -> Response<Body> {
        let answer = self.gateway.router().oneshot(request).await;
        answer.unwrap_or_else(|never| match never {})
    }

    /// Posts JSON; `prefer` is what the header says.
    pub(crate) async fn post(&self, path: &str, prefer: &str, body: Value) -> (StatusCode, Value) {
        let request = Request::post(path)
            .header("content-type", "application/json")
            .header("prefer", prefer)
            .body(Body::from(body.to_string()))
            .expect("it is a request");
        let answer = self.ask(request).await;
        let status = answer.status();
        let text = text(answer).await;
        (status, serde_json::from_str(&text).expect("it is JSON"))
    }

    pub(crate) async fn get(&self, path: &str) -> String {
        let request = Request::get(path).body(Body::empty());
        text(self.ask(request.expect("it is a request")).await).await
    }
}

async fn text(answer: Response<Body>) -> String {
    let body = answer.into_body().collect().await.expect("a whole body");
    String::from_utf8(body.to_bytes().into()).expect("it is text")
}

fn owner() -> Caller {
    Caller {
        tenant: "local".into(),
        key: None,
        weight: 1,
        concurrency: None,
        cpu_us_per_day: None,
    }
}

type Given = Arc<Mutex<HashMap<String, (String, CancellationToken)>>>;

async fn host(bus: Arc<dyn Bus>, held: watch::Receiver<bool>) -> Server {
    let given = Given::default();
    let mut server = Server::new(bus, &format!("agent.{HOST}"));
    let all = Arc::clone(&given);
    let start = move |call: StartRun| {
        let code = match call.request.code {
            Content::Text(code) => code,
            _ => String::new(),
        };
        let mut all = all.lock().expect("nobody panicked");
        all.insert(call.id.to_string(), (code, CancellationToken::new()));
        std::future::ready(Ok(()))
    };
    server.on(start).await.expect("it is served");
    let all = Arc::clone(&given);
    let stop = move |call: StopRun| {
        let all = all.lock().expect("nobody panicked");
        all[&call.id.to_string()].1.cancel();
        std::future::ready(Ok(()))
    };
    server.on(stop).await.expect("it is served");
    let follow = move |call: FollowRun| {
        let found = given.lock().expect("nobody panicked")[&call.id.to_string()].clone();
        let mut held = held.clone();
        async move {
            let (code, stopped) = found;
            if code == "hold" {
                tokio::select! {
                    _ = held.wait_for(|let_go| *let_go) => {}
                    () = stopped.cancelled() => return Ok(page(vec![ended(End::Cancelled)])),
                }
            }
            if code == "stream" {
                if call.read.after == 0 {
                    return Ok(begun());
                }
                let _ = held.wait_for(|let_go| *let_go).await;
                return Ok(rest(call.read.after));
            }
            Ok(ran(code))
        }
    };
    server.on(follow).await.expect("it is served");
    sandboxes(&mut server).await;
    server
}

/// Sandboxes that are whatever they are told to be, and never change by themselves.
async fn sandboxes(server: &mut Server) {
    let make = |_: MakeSandbox| std::future::ready(Ok(seen(1, SandboxState::Running)));
    server.on(make).await.expect("it is served");
    let tell = |call: TellSandbox| {
        let state = match call.order {
            SandboxOrder::Destroy => SandboxState::Destroyed,
            SandboxOrder::Pause => SandboxState::Paused,
            _ => SandboxState::Running,
        };
        std::future::ready(Ok(seen(2, state)))
    };
    server.on(tell).await.expect("it is served");
    let look = |_: LookSandbox| std::future::pending();
    server.on(look).await.expect("it is served");
}

fn seen(revision: u64, state: SandboxState) -> SandboxSeen {
    SandboxSeen {
        state,
        reason: (state == SandboxState::Destroyed).then_some(Reason::Asked),
        revision,
        cpu_us: 0,
    }
}

/// What `stream` says at first.
fn begun() -> LogPage {
    let (host, origin) = (HOST.into(), Origin::Pool);
    let events = vec![
        Event::Started { host, origin },
        Event::Stdout(b"first\n".into()),
    ];
    LogPage {
        end: false,
        ..page(events)
    }
}

/// What it says after that.
fn rest(after: u64) -> LogPage {
    let mut page = ran(String::new());
    let end = page.events.pop().map(|(_, end)| end);
    let events = [Event::Stderr(b"last\n".into())].into_iter().chain(end);
    page.events = (after + 1..).zip(events).collect();
    page
}

fn ran(code: String) -> LogPage {
    if code == "break" {
        let problem = Problem::new(Code::Internal, "the host broke");
        return page(vec![ended(End::Failed(problem))]);
    }
    let origin = Origin::Pool;
    let phases_ms = [("renewed", 5.0), ("result", 30.0)];
    let ran = Ran {
        host: HOST.into(),
        origin,
        phases_ms: phases_ms.map(|(name, at)| (name.into(), at)).into(),
        ..Ran::default()
    };
    let ending = Ending {
        exit_code: 3,
        ..Ending::default()
    };
    let host = HOST.into();
    let started = Event::Started { host, origin };
    let stdout = Event::Stdout(code.into_bytes());
    page(vec![started, stdout, ended(End::Done { ending, ran })])
}

fn ended(end: End) -> Event {
    Event::Ended(Box::new(end))
}

fn page(events: Vec<Event>) -> LogPage {
    LogPage {
        events: (1..).zip(events).collect(),
        gap: None,
        end: true,
    }
}
