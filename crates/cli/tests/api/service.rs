//! Gateway and coordinator in this process, and a host that only says that it ran something.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, Request, Response, StatusCode};
use firelane_coordinator::{Config, Coordinator};
use firelane_gateway::Gateway;
use firelane_gateway::listen::{self, Listener};
use firelane_model::id::KeyId;
use firelane_store::bus::{Bus, Calls, LocalBus, Server};
use firelane_store::db::Db;
use firelane_traces::Sink;
use firelane_wire::bus::{
    Caller, ChangeSandbox, CreateSandbox, MakeKey, ReportHost, RevokeKey, SandboxChange,
};
use firelane_wire::host::{Host, Pool, Standing};
use firelane_wire::key::{KeyLimits, KeyMade, NewKey, Scope};
use firelane_wire::sandbox::{Sandbox, SandboxState};
use http_body_util::BodyExt;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::host::{Begun, HOST, host};

/// How the service is to be.
#[derive(Clone)]
pub(crate) struct Setup {
    /// Runs that its only host runs at once.
    pub(crate) slots: u32,
    pub(crate) queue: usize,
    pub(crate) queue_per_tenant: usize,
    /// Whether API keys are needed.
    pub(crate) keys: bool,
    /// Who needs none over the Unix socket; root never does.
    pub(crate) owner: u32,
    /// Where the database is; a folder of its own, if none is named.
    pub(crate) folder: Option<PathBuf>,
    /// Takes the spans of what is over.
    pub(crate) traces: Sink,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            slots: 1,
            queue: 100,
            queue_per_tenant: 100,
            keys: false,
            owner: u32::MAX,
            folder: None,
            traces: Sink::off(),
        }
    }
}

/// The service. Everything ends when it is dropped.
pub(crate) struct Service {
    pub(crate) gateway: Arc<Gateway>,
    coordinator: Calls,
    /// Lets go of what is held.
    pub(crate) let_go: watch::Sender<bool>,
    pub(crate) begun: Begun,
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
        let setup = Setup {
            slots,
            queue,
            queue_per_tenant: queue,
            keys,
            ..Setup::default()
        };
        Service::with(setup).await
    }

    /// A service that is set up so.
    pub(crate) async fn with(setup: Setup) -> Service {
        let files = tempfile::tempdir().expect("there is room");
        let folder = setup.folder.as_deref().unwrap_or(files.path());
        let bus: Arc<dyn Bus> = Arc::new(LocalBus::new());
        let db = Db::open(&folder.join("db")).await.expect("a database");
        let config = Config {
            queue: setup.queue,
            queue_per_tenant: setup.queue_per_tenant,
            traces: setup.traces.clone(),
        };
        let coordinator = Coordinator::new(config, Arc::clone(&bus), db).await;
        let coordinator = coordinator.expect("a coordinator");
        let serving = coordinator.serve().await.expect("it serves");
        let (let_go, held) = watch::channel(false);
        let begun = Begun::default();
        let host = host(Arc::clone(&bus), held, Arc::clone(&begun)).await;
        let config = firelane_gateway::Config {
            keys: setup.keys,
            owner: setup.owner,
            traces: setup.traces,
        };
        let calls = Calls::of(Arc::clone(&bus), "coordinator");
        let gateway = Gateway::new(config, bus, CancellationToken::new());
        gateway.show(|registry| coordinator.register(registry));
        let service = Service {
            gateway,
            coordinator: calls,
            let_go,
            begun,
            _servers: [serving, host],
            _files: files,
        };
        service.report(setup.slots, Vec::new()).await;
        service
    }

    /// Answers on this socket too, while the test goes on.
    pub(crate) fn listen(&self, listener: Listener) {
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        tokio::spawn(listen::serve(listener, self.gateway.router(), stop, tasks));
    }

    /// Waits until the host was given so many runs.
    pub(crate) async fn until_begun(&self, count: usize) {
        let begun = || self.begun.lock().expect("nobody panicked").len();
        let waiting = async {
            while begun() < count {
                tokio::task::yield_now().await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(20), waiting).await;
        waited.unwrap_or_else(|_| panic!("{} of {count} runs have begun", begun()));
    }

    /// The host tells how it is. After ten seconds without a word it gets no work.
    pub(crate) async fn report(&self, slots: u32, pools: Vec<Pool>) {
        // As much as there are pools.
        let count = u32::try_from(pools.len()).expect("few");
        let host = Host {
            id: HOST.into(),
            driver: "qemu".into(),
            acceleration: "tcg".into(),
            slots,
            running: 0,
            sandboxes: 0,
            pools,
            standing: Standing {
                waiting: 2 * count,
                hits: u64::from(5 * count),
                misses: u64::from(3 * count),
            },
            version: "1".into(),
        };
        let draining = false;
        let reported = self.coordinator.ask(&ReportHost { host, draining }).await;
        reported.expect("it is taken");
    }

    /// Makes an API key that allows everything.
    pub(crate) async fn key(&self) -> String {
        self.key_of("all", &[Scope::Admin]).await.token
    }

    /// Makes an API key of a tenant.
    pub(crate) async fn key_of(&self, tenant: &str, scopes: &[Scope]) -> KeyMade {
        let key = NewKey {
            name: tenant.into(),
            tenant: None,
            scopes: scopes.iter().copied().collect(),
            weight: None,
            limits: KeyLimits::default(),
        };
        let actor = "test".into();
        let made = self.coordinator.ask(&MakeKey { actor, key }).await;
        made.expect("it is made")
    }

    /// Ends an API key.
    pub(crate) async fn revoke(&self, id: KeyId) {
        let actor = "test".into();
        let revoked = self.coordinator.ask(&RevokeKey { actor, id }).await;
        revoked.expect("it is revoked");
    }

    /// Asks with an API key; JSON is posted, and nothing is asked for by GET.
    pub(crate) async fn with_key(
        &self,
        token: Option<&str>,
        path: &str,
        body: Option<Value>,
    ) -> (StatusCode, HeaderMap, Value) {
        let method = if body.is_some() { "POST" } else { "GET" };
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let body = body.map_or_else(String::new, |body| body.to_string());
        let request = request
            .header("content-type", "application/json")
            .header("prefer", "respond-async")
            .body(Body::from(body));
        let answer = self.ask(request.expect("it is a request")).await;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let value = serde_json::from_str(&text(answer).await);
        (status, headers, value.expect("it is JSON"))
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
