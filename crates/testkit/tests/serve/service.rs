//! A service in a lab.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use firelane_client::{Client, Method, Target};
use firelane_testkit::{Lab, Running, processes_of};
use firelane_wire::host::Host;
use firelane_wire::run::{Run, RunRequest};
use rustix::process::Signal;
use serde_json::Value;
use tokio::runtime::Runtime;

/// How long a service may take until it is there: it makes a snapshot if there is none.
const START: Duration = Duration::from_secs(240);
/// How long anything may take that is waited for.
const SOON: Duration = Duration::from_secs(120);

/// A service in a lab, with the small template.
pub(crate) struct Service<'a> {
    pub(crate) lab: &'a Lab,
    pub(crate) running: Running,
    pub(crate) client: Client,
    pub(crate) runtime: Runtime,
}

impl<'a> Service<'a> {
    pub(crate) fn start(lab: &'a Lab, more: &[&str]) -> Service<'a> {
        let state = lab.path().join("state");
        let args = [
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--template",
            "base",
            "--state",
            state.to_str().expect("a plain name"),
        ];
        let all: Vec<&str> = args.iter().chain(more).copied().collect();
        let running = Running::start(lab.command(&all), b"");
        let socket = Service::socket(lab);
        let deadline = Instant::now() + START;
        while UnixStream::connect(&socket).is_err() {
            assert!(Instant::now() < deadline, "the service does not come");
            std::thread::sleep(Duration::from_millis(20));
        }
        let service = Service {
            lab,
            running,
            client: Client::new(Target::Unix(socket), None),
            runtime: Runtime::new().expect("threads"),
        };
        service.until("it is ready", || {
            service.runtime.block_on(service.client.ready()).is_ok()
        });
        service
    }

    pub(crate) fn socket(lab: &Lab) -> PathBuf {
        lab.run_dir().join("serve.sock")
    }

    /// Waits for a state.
    pub(crate) fn until(&self, what: &str, mut reached: impl FnMut() -> bool) {
        let deadline = Instant::now() + SOON;
        while !reached() {
            assert!(Instant::now() < deadline, "not in time: {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn submit(&self, lang: &str, code: &str) -> Run {
        let json = serde_json::json!({"lang": lang, "code": code, "template": "base"});
        let request: RunRequest = serde_json::from_value(json).expect("a request");
        self.runtime
            .block_on(self.client.submit(&request))
            .expect("it is queued")
    }

    pub(crate) fn look(&self, run: &Run) -> Run {
        self.runtime
            .block_on(self.client.run(run.id))
            .expect("it is known")
    }

    pub(crate) fn over(&self, run: &Run) -> Run {
        let mut last = None;
        self.until("a run is over", || {
            let now = self.look(run);
            let over = now.state.is_final();
            last = Some(now);
            over
        });
        last.expect("it was looked at")
    }

    /// The host, as it last told.
    pub(crate) fn host(&self) -> Host {
        let asked = self.client.send(Method::GET, "/v1/hosts", None, &[]);
        let raw = self.runtime.block_on(asked).expect("an answer");
        let mut hosts: Vec<Host> = serde_json::from_slice(&raw.body).expect("hosts");
        hosts.pop().expect("the service is one")
    }

    /// A clone waits in the pool, by a report that knows of this many claims.
    pub(crate) fn until_warm(&self, claims: u64) {
        self.until("a clone is warm", || {
            let host = self.host();
            let mut pools = host.pools.iter();
            pools.any(|pool| pool.hits == claims && pool.ready > 0)
        });
    }

    /// The status and the body of an answer.
    pub(crate) fn ask(&self, method: Method, path: &str, body: Option<&[u8]>) -> (u16, Bytes) {
        let headers: &[_] = match body {
            Some([b'{', ..]) => &[("content-type", "application/json")],
            _ => &[],
        };
        let body = body.map(Bytes::copy_from_slice);
        let asked = self.client.send(method, path, body, headers);
        let raw = self.runtime.block_on(asked).expect("an answer");
        (raw.status.as_u16(), raw.body)
    }

    /// What is answered with success, as JSON.
    pub(crate) fn json(&self, method: Method, path: &str, body: Option<&Value>) -> Value {
        let body = body.map(|body| body.to_string().into_bytes());
        let (status, body) = self.ask(method, path, body.as_deref());
        let json = serde_json::from_slice(&body).unwrap_or(Value::Null);
        assert!((200..300).contains(&status), "{path}: {status} {json}");
        json
    }

    /// Ends it in order, and gives its exit code after a look at what is left.
    pub(crate) fn stop(self) -> i32 {
        self.running.signal(Signal::TERM);
        let ended = self.running.end();
        self.lab.assert_empty();
        assert_eq!(processes_of(self.lab.path()), Vec::<String>::new());
        assert!(!Service::socket(self.lab).exists());
        ended.code
    }
}
