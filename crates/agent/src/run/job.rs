//! One run, from claim to teardown.

use std::time::Duration;

use async_trait::async_trait;
use firelane_guest_proto::message::{ExecSpec, Limits, Outcome, Program, PtySize, PutSpec};
use firelane_model::id::RunId;
use firelane_vmm::driver::MicroVm;
use firelane_vmm::session::Session;
use firelane_vmm::timeline::{Phase, Timeline};
use firelane_wire::event::{End, Event, Input};
use firelane_wire::network::NetworkSeen;
use firelane_wire::problem::Problem;
use firelane_wire::run::{Ending, Origin, Ran, RunRequest};
use tokio::sync::mpsc;

use super::{Here, fetch, stopped};
use crate::Agent;
use crate::clone::Ready;
use crate::feed::{self, Feed};
use crate::follow::{Bounds, Sink, follow};
use crate::problem::{from_clone, from_content, from_follow, from_prepare, from_session};
use crate::workshop::{Prepared, program_memory_bytes};

/// Working directory of a run, where its files are put.
const WORK: &str = "/work";

pub(super) async fn run(
    agent: &Agent,
    id: RunId,
    request: RunRequest,
    here: &Here,
    inputs: mpsc::Receiver<Input>,
) {
    let _busy = agent.load.enter();
    let mut timeline = Timeline::start();
    let end = match claim(agent, id, &request, &mut timeline).await {
        Ok((prepared, ready, origin)) => {
            let Ready {
                mut vm,
                session,
                network,
                ..
            } = ready;
            here.log.append(Event::Started {
                host: agent.config.host.clone(),
                origin,
            });
            let job = Job {
                id,
                request,
                prepared: &prepared,
                here,
            };
            let outcome = tokio::select! {
                outcome = job.run(&mut *vm, &session, inputs, &mut timeline) => outcome.map(Some),
                () = here.stop.cancelled() => Ok(None),
            };
            drop(session);
            let seen = match &network {
                Some(network) => network.look().await.map(NetworkSeen::bounded),
                None => None,
            };
            agent.teardown(vm, network);
            match outcome {
                Ok(Some(outcome)) => End::Done {
                    ending: Ending::from(&outcome),
                    ran: Ran {
                        network: seen,
                        ..ran(agent, origin, &timeline)
                    },
                },
                Ok(None) => stopped(agent),
                Err(problem) => End::Failed(problem),
            }
        }
        Err(problem) => End::Failed(problem),
    };
    here.log.end(end);
}

/// A microVM for the run: one that waits in the pool, else a fresh clone.
async fn claim(
    agent: &Agent,
    id: RunId,
    request: &RunRequest,
    timeline: &mut Timeline,
) -> Result<(std::sync::Arc<Prepared>, Ready, Origin), Problem> {
    let prepared = agent.workshop.prepare(&request.template).await;
    let prepared = prepared.map_err(|error| from_prepare(&request.template, &error))?;
    if let Some(warm) = agent.pools.claim(&prepared, request.lang).await {
        match warm.wake(timeline).await {
            Ok(ready) => return Ok((prepared, ready, Origin::Pool)),
            // One that does not wake is gone; a fresh one serves as well.
            Err(error) => tracing::warn!(run = %id, %error, "a warm clone did not wake"),
        }
    }
    *timeline = Timeline::start();
    let restored = agent
        .workshop
        .restore(&prepared, &id.to_string(), timeline)
        .await;
    let ready = restored.map_err(|error| from_clone(&error))?;
    Ok((prepared, ready, Origin::Snapshot))
}

struct Job<'a> {
    id: RunId,
    request: RunRequest,
    prepared: &'a Prepared,
    here: &'a Here,
}

impl Job<'_> {
    async fn run(
        mut self,
        vm: &mut dyn MicroVm,
        session: &Session,
        inputs: mpsc::Receiver<Input>,
        timeline: &mut Timeline,
    ) -> Result<Outcome, Problem> {
        for file in std::mem::take(&mut self.request.files) {
            let content = file
                .content
                .into_bytes()
                .map_err(|error| from_content(&error))?;
            let spec = PutSpec {
                path: file.path,
                mode: file.mode,
                size: content.len() as u64,
            };
            let put = session.put(&spec, content.as_slice()).await;
            put.map_err(|error| from_session(&error))?;
        }
        let stdin = std::mem::take(&mut self.request.stdin);
        let stdin = stdin.into_bytes().map_err(|error| from_content(&error))?;
        let spec = self.spec()?;
        let bounds = Bounds {
            time: Some(Duration::from_millis(self.request.timeout_ms)),
            output: self.request.output_bytes,
        };
        let exec = session
            .exec(&spec)
            .await
            .map_err(|error| from_session(&error))?;
        timeline.mark(Phase::Sent);
        let interactive = self.request.interactive;
        let mut feed = Feed::new(stdin, interactive, inputs, 0);
        let input = exec.stdin();
        let mut sink = Logged(self.here);
        let following = follow(vm, exec, bounds, &mut sink);
        let followed = tokio::select! {
            followed = following => followed,
            // Ends only with the session, which the following tells better.
            never = feed::then_wait(feed.send(&input)) => match never {},
        };
        let outcome = followed.map_err(|error| from_follow(&error))?;
        timeline.mark(Phase::Result);
        fetch::fetch(session, &self.request.fetch, &self.here.log).await;
        Ok(outcome)
    }

    fn spec(&mut self) -> Result<ExecSpec, Problem> {
        let request = &mut self.request;
        let code = std::mem::take(&mut request.code);
        let source = code.into_bytes().map_err(|error| from_content(&error))?;
        let template_env = self.prepared.template.manifest().env.clone();
        let own_env = std::mem::take(&mut request.env);
        Ok(ExecSpec {
            trace_id: self.id.to_string(),
            program: Program::Code {
                lang: request.lang,
                source,
                args: std::mem::take(&mut request.args),
            },
            env: template_env.into_iter().chain(own_env).collect(),
            cwd: Some(WORK.into()),
            limits: Limits {
                timeout_ms: request.timeout_ms,
                output_bytes: request.output_bytes,
                memory_bytes: program_memory_bytes(&self.prepared.machine, request.memory_mib),
                ..Limits::default()
            },
            pty: request.pty.map(|pty| PtySize {
                rows: pty.rows,
                cols: pty.cols,
            }),
        })
    }
}

fn ran(agent: &Agent, origin: Origin, timeline: &Timeline) -> Ran {
    let driver = agent.workshop.driver();
    Ran {
        host: agent.config.host.clone(),
        driver: driver.kind().name().into(),
        acceleration: driver.acceleration().to_string(),
        origin,
        phases_ms: timeline.in_ms(),
        network: None,
    }
}

/// Writes what the program writes to the run's log.
struct Logged<'a>(&'a Here);

#[async_trait]
impl Sink for Logged<'_> {
    type Error = std::convert::Infallible;

    async fn stdout(&mut self, bytes: Vec<u8>) -> Result<(), Self::Error> {
        self.0.log.append(Event::Stdout(bytes));
        Ok(())
    }

    async fn stderr(&mut self, bytes: Vec<u8>) -> Result<(), Self::Error> {
        self.0.log.append(Event::Stderr(bytes));
        Ok(())
    }
}
