//! An agent with a Bus of its own, and what is asked of it again and again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use firelane_agent::Agent;
use firelane_agent::service::Config;
use firelane_agent::workshop::Workshop;
use firelane_image::Store;
use firelane_model::id::{ExecId, SandboxId};
use firelane_model::pool::PoolConfig;
use firelane_store::bus::{Calls, LocalBus, Server, SharedBus};
use firelane_testkit::Lab;
use firelane_testkit::booted::qemu;
use firelane_vmm::driver::Driver;
use firelane_wire::bus::*;
use firelane_wire::event::{End, Event, ReadLog};
use firelane_wire::exec::NewExec;
use firelane_wire::problem::Problem;
use firelane_wire::run::Ending;
use firelane_wire::sandbox::{NewSandbox, SandboxState};
use serde_json::json;
use tokio::time::{Instant, timeout};

/// Long enough for whatever is waited for, on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
const TENANT: &str = "tests";

/// An agent with a Bus of its own.
pub(crate) struct Host {
    pub(crate) agent: Arc<Agent>,
    calls: Calls,
    pub(crate) server: Server,
    pub(crate) lab: Lab,
    last: AtomicU64,
}

impl Host {
    pub(crate) async fn start() -> Host {
        Host::start_in(Lab::new()).await
    }

    pub(crate) async fn start_in(lab: Lab) -> Host {
        let driver = Arc::new(qemu(&lab));
        Host::start_with(lab, driver).await
    }

    /// One with this driver.
    pub(crate) async fn start_with(lab: Lab, driver: Arc<dyn Driver>) -> Host {
        let store = Store::open(lab.home()).unwrap();
        let workshop = Workshop::new(driver, store, lab.bin().join("firelane-guest"));
        let config = Config {
            host: "here".into(),
            slots: 1,
            pool: PoolConfig {
                min: 0,
                max: 0,
                max_age: PATIENCE,
            },
            warm: Vec::new(),
            sandboxes: 4,
            keep: lab.path().join("keep"),
        };
        let bus: SharedBus = Arc::new(LocalBus::new());
        let agent = Agent::new(config, Arc::new(workshop));
        let server = agent.serve(Arc::clone(&bus)).await.unwrap();
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        Host {
            agent,
            calls: Calls::of(bus, "agent.here"),
            server,
            lab,
            last: AtomicU64::new(u64::try_from(since.as_nanos()).unwrap()),
        }
    }

    /// Another name than any before, of this test or of others that run at the same time.
    pub(crate) fn name(&self) -> u128 {
        let own = self.lab.path().as_os_str().len() as u128 ^ u128::from(std::process::id());
        own << 64 | u128::from(self.last.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) async fn ask<C: Call>(&self, call: C) -> Result<C::Answer, Problem> {
        self.calls.ask_for(&call, PATIENCE).await
    }

    pub(crate) fn new_ref(&self) -> SandboxRef {
        SandboxRef {
            tenant: TENANT.into(),
            id: SandboxId::from_bits(self.name()),
        }
    }

    /// A sandbox of the small template, with these fields.
    pub(crate) async fn make(&self, fields: serde_json::Value) -> SandboxRef {
        let mut request: NewSandbox = serde_json::from_value(fields).unwrap();
        request.template = "base".into();
        let sandbox = self.new_ref();
        let call = MakeSandbox {
            sandbox: sandbox.clone(),
            request,
        };
        let seen = self.ask(call).await.unwrap();
        assert_eq!(seen.state, SandboxState::Running);
        sandbox
    }

    pub(crate) async fn tell(
        &self,
        sandbox: &SandboxRef,
        order: SandboxOrder,
    ) -> Result<SandboxSeen, Problem> {
        let sandbox = sandbox.clone();
        self.ask(TellSandbox { sandbox, order }).await
    }

    pub(crate) async fn start_exec(&self, sandbox: &SandboxRef, exec: serde_json::Value) -> ExecId {
        let id = ExecId::from_bits(self.name());
        let request: NewExec = serde_json::from_value(exec).unwrap();
        let call = StartExec {
            sandbox: sandbox.clone(),
            id,
            request,
        };
        let exec = self.ask(call).await.unwrap();
        assert!(exec.running);
        id
    }

    /// What a program has written from this number on, and how it ended, if it has.
    pub(crate) async fn follow(
        &self,
        sandbox: &SandboxRef,
        id: ExecId,
        after: u64,
    ) -> (u64, String, Option<End>) {
        let call = FollowExec {
            sandbox: sandbox.clone(),
            id,
            read: ReadLog {
                after,
                max_bytes: 1 << 20,
                wait_ms: 1_000,
                whole: false,
            },
        };
        let page = self.ask(call).await.unwrap();
        assert_eq!(page.gap, None);
        let (mut last, mut text, mut end) = (after, String::new(), None);
        for (number, event) in page.events {
            last = number;
            match event {
                Event::Stdout(bytes) | Event::Stderr(bytes) => {
                    text += &String::from_utf8(bytes).unwrap();
                }
                Event::Ended(ended) => end = Some(*ended),
                _ => {}
            }
        }
        (last, text, end)
    }

    pub(crate) async fn end_of(&self, sandbox: &SandboxRef, id: ExecId) -> (String, End) {
        let (mut after, mut text) = (0, String::new());
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "no end; so far {text}");
            let (last, more, end) = self.follow(sandbox, id, after).await;
            after = last;
            text += &more;
            if let Some(end) = end {
                return (text, end);
            }
        }
    }

    /// What a script writes; it must succeed.
    pub(crate) async fn output(&self, sandbox: &SandboxRef, script: &str) -> String {
        let id = self
            .start_exec(sandbox, json!({"lang": "bash", "code": script}))
            .await;
        let (text, end) = self.end_of(sandbox, id).await;
        assert_eq!(done(&end).exit_code, 0, "{script}: {text}");
        text
    }

    /// Reads on until a line is this one.
    pub(crate) async fn until(&self, sandbox: &SandboxRef, id: ExecId, line: &str) -> Vec<String> {
        let (mut after, mut text) = (0, String::new());
        let deadline = Instant::now() + PATIENCE;
        while !text.lines().any(|one| one == line) {
            assert!(Instant::now() < deadline, "no {line}; so far {text}");
            let (last, more, _) = self.follow(sandbox, id, after).await;
            after = last;
            text += &more;
        }
        text.lines().map(String::from).collect()
    }

    /// Waits until a sandbox is in this state.
    pub(crate) async fn reaches(&self, sandbox: &SandboxRef, state: SandboxState) -> SandboxSeen {
        let reached = async {
            let mut revision = 0;
            loop {
                let call = LookSandbox {
                    sandbox: sandbox.clone(),
                    revision,
                    wait_ms: 20_000,
                };
                let seen = self.ask(call).await.unwrap();
                if seen.state == state {
                    return seen;
                }
                revision = seen.revision;
            }
        };
        timeout(PATIENCE, reached).await.unwrap()
    }

    pub(crate) async fn put(
        &self,
        sandbox: &SandboxRef,
        path: &str,
        content: &[u8],
    ) -> Result<PipeDone, Problem> {
        let what = Piped::Put {
            path: path.into(),
            size: content.len() as u64,
            mode: 0o644,
        };
        self.send(sandbox, what, content).await
    }

    pub(crate) async fn send(
        &self,
        sandbox: &SandboxRef,
        what: Piped,
        content: &[u8],
    ) -> Result<PipeDone, Problem> {
        let sandbox = sandbox.clone();
        let pipe = self.ask(OpenPipe { sandbox, what }).await?.pipe;
        for part in content.chunks(MAX_PART_BYTES) {
            let bytes = part.to_vec();
            self.ask(WritePipe { pipe, bytes }).await?;
        }
        self.ask(FinishPipe { pipe }).await
    }

    pub(crate) async fn receive(
        &self,
        sandbox: &SandboxRef,
        what: Piped,
    ) -> Result<Vec<u8>, Problem> {
        let sandbox = sandbox.clone();
        let pipe = self.ask(OpenPipe { sandbox, what }).await?.pipe;
        let mut all = Vec::new();
        loop {
            let wait_ms = 20_000;
            let part = self.ask(ReadPipe { pipe, wait_ms }).await?;
            all.extend(part.bytes);
            if part.end {
                return Ok(all);
            }
        }
    }

    pub(crate) async fn end(self) {
        self.agent.shut_down(Instant::now()).await;
        self.lab.assert_empty();
    }
}

pub(crate) fn done(end: &End) -> &Ending {
    match end {
        End::Done { ending, .. } => ending,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn get(path: &str) -> Piped {
    Piped::Get {
        path: path.into(),
        offset: 0,
        length: u64::MAX,
    }
}
