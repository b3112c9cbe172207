//! A service in a lab.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use firelane_client::{Client, Method, Target};
use firelane_wire::host::Host;
use firelane_wire::run::{Run, RunRequest};
use rustix::process::Signal;
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::{Ended, Lab, Running, processes_of};

/// How long a service may take until it is there: it makes a snapshot if there is none.
const START: Duration = Duration::from_secs(240);
/// How long anything may take that is waited for.
const SOON: Duration = Duration::from_secs(120);

/// A service in a lab.
pub struct Service<'a> {
    /// The lab.
    pub lab: &'a Lab,
    /// The command.
    pub running: Running,
    /// A client at its socket.
    pub client: Client,
    /// What the client runs by.
    pub runtime: Runtime,
}

impl<'a> Service<'a> {
    /// One with the small template and these arguments.
    ///
    /// # Panics
    /// If it does not come.
    #[must_use]
    pub fn start(lab: &'a Lab, more: &[&str]) -> Service<'a> {
        Service::start_with(lab, "base", &[], more)
    }

    /// One with this template, these variables of its environment and these arguments.
    ///
    /// # Panics
    /// If it does not come.
    #[must_use]
    pub fn start_with(
        lab: &'a Lab,
        template: &str,
        env: &[(&str, &str)],
        more: &[&str],
    ) -> Service<'a> {
        let state = lab.path().join("state");
        let args = [
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--template",
            template,
            "--state",
            state.to_str().expect("a plain name"),
        ];
        let all: Vec<&str> = args.iter().chain(more).copied().collect();
        let mut command = lab.command(&all);
        command.envs(env.iter().copied());
        let running = Running::start(command, b"");
        let socket = Service::socket(lab);
        let running = come(running, START, "it listens", || {
            UnixStream::connect(&socket).is_ok()
        });
        let client = Client::new(Target::Unix(socket), None);
        let runtime = Runtime::new().expect("threads");
        let running = come(running, SOON, "it is ready", || {
            runtime.block_on(client.ready()).is_ok()
        });
        Service {
            lab,
            running,
            client,
            runtime,
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn socket(lab: &Lab) -> PathBuf {
        lab.run_dir().join("serve.sock")
    }

    /// Waits for a state.
    ///
    /// # Panics
    /// If it does not come.
    pub fn until(&self, what: &str, mut reached: impl FnMut() -> bool) {
        let deadline = Instant::now() + SOON;
        while !reached() {
            assert!(Instant::now() < deadline, "not in time: {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Asks for a run in the small template.
    ///
    /// # Panics
    /// If it is refused.
    #[must_use]
    pub fn submit(&self, lang: &str, code: &str) -> Run {
        let json = serde_json::json!({"lang": lang, "code": code, "template": "base"});
        let request: RunRequest = serde_json::from_value(json).expect("a request");
        self.runtime
            .block_on(self.client.submit(&request))
            .expect("it is queued")
    }

    /// A run as it is now.
    ///
    /// # Panics
    /// If nobody knows it.
    #[must_use]
    pub fn look(&self, run: &Run) -> Run {
        self.runtime
            .block_on(self.client.run(run.id))
            .expect("it is known")
    }

    /// A run as it is once it is over.
    ///
    /// # Panics
    /// If it does not end.
    #[must_use]
    pub fn over(&self, run: &Run) -> Run {
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
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn host(&self) -> Host {
        let asked = self.client.send(Method::GET, "/v1/hosts", None, &[]);
        let raw = self.runtime.block_on(asked).expect("an answer");
        let mut hosts: Vec<Host> = serde_json::from_slice(&raw.body).expect("hosts");
        hosts.pop().expect("the service is one")
    }

    /// A clone waits in the pool, by a report that knows of this many claims.
    ///
    /// # Panics
    /// If none does in time.
    pub fn until_warm(&self, claims: u64) {
        self.until("a clone is warm", || {
            let host = self.host();
            let mut pools = host.pools.iter();
            pools.any(|pool| pool.hits == claims && pool.ready > 0)
        });
    }

    /// The status and the body of an answer.
    ///
    /// # Panics
    /// If there is no answer.
    pub fn ask(&self, method: Method, path: &str, body: Option<&[u8]>) -> (u16, Bytes) {
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
    ///
    /// # Panics
    /// If it is refused.
    pub fn json(&self, method: Method, path: &str, body: Option<&Value>) -> Value {
        let body = body.map(|body| body.to_string().into_bytes());
        let (status, body) = self.ask(method, path, body.as_deref());
        let json = serde_json::from_slice(&body).unwrap_or(Value::Null);
        assert!((200..300).contains(&status), "{path}: {status} {json}");
        json
    }

    /// Ends it in order, and gives its exit code after a look at what is left.
    ///
    /// # Panics
    /// If something is left.
    #[must_use]
    pub fn stop(self) -> i32 {
        self.running.signal(Signal::TERM);
        let ended = self.running.end();
        self.lab.assert_empty();
        assert_eq!(processes_of(self.lab.path()), Vec::<String>::new());
        assert!(!Service::socket(self.lab).exists());
        ended.code
    }
}

/// Waits for a state that a service comes to. One that has ended does not come to it.
fn come(
    mut running: Running,
    within: Duration,
    what: &str,
    mut reached: impl FnMut() -> bool,
) -> Running {
    let deadline = Instant::now() + within;
    while !reached() {
        if running.is_over() {
            let Ended { code, stderr, .. } = running.end();
            panic!("the service ended with {code} before {what}: {stderr}");
        }
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
    running
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "the service ended with 7 before it listens: no room\n")]
    fn a_service_that_has_ended_is_not_waited_for() {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", "echo no room >&2; exit 7"]);
        let running = Running::start(command, b"");
        let _running = come(running, START, "it listens", || false);
    }
}
