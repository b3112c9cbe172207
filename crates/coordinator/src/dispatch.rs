//! Gives runs to hosts, and follows each to its end.

use std::sync::Arc;
use std::time::Duration;

use firelane_wire::bus::{FollowRun, StartRun, StopRun};
use firelane_wire::event::{End, Event, ReadLog};
use firelane_wire::problem::{Code, Problem};
use firelane_wire::run::RunState;
use tokio::time::{Instant, sleep};

use crate::entry::Entry;
use crate::records;
use crate::service::Coordinator;

/// How often the queue is looked at when nothing happens: deadlines pass, hosts fall silent.
const LOOK: Duration = Duration::from_millis(500);
/// How long a host is asked to wait for something new, in milliseconds.
const FOLLOW_MS: u64 = 10_000;
/// Bytes that are taken from a host at once.
const FOLLOW_BYTES: u64 = 256 << 10;
/// Pause before a host that did not answer is asked again.
const RETRY: Duration = Duration::from_millis(200);

impl Coordinator {
    /// Hands out what is queued, until the end.
    pub(crate) async fn dispatch(self: Arc<Self>) {
        while !self.stop.is_cancelled() {
            self.expire();
            while let Some((entry, host)) = self.next() {
                let coordinator = Arc::clone(&self);
                self.tasks
                    .spawn(async move { coordinator.drive(entry, host).await });
            }
            tokio::select! {
                () = self.work.notified() => {}
                () = sleep(LOOK) => {}
                () = self.stop.cancelled() => {}
            }
        }
    }

    fn expire(self: &Arc<Self>) {
        let expired = {
            let now = self.clock();
            self.state().queue.expire(now)
        };
        for queued in expired {
            self.finish(&queued.item.entry, &End::Expired);
        }
    }

    /// The next run and the host that gets it.
    fn next(&self) -> Option<(Arc<Entry>, String)> {
        let mut state = self.state();
        if state.queue.is_empty() {
            return None;
        }
        let host = state.hosts.take_slot(Instant::now())?;
        match state.queue.pop(self.clock()) {
            Some(queued) => Some((queued.item.entry, host)),
            None => {
                state.hosts.free_slot(&host);
                None
            }
        }
    }

    async fn drive(self: Arc<Self>, entry: Arc<Entry>, host: String) {
        let request = {
            let mut now = entry.now();
            now.state = RunState::Running;
            now.started = Some(records::now());
            // Of one that is not durable the record is made at its end.
            now.attempt += u32::from(!entry.durable);
            now.started_at = Some(Instant::now());
            now.host = Some(host.clone());
            now.request.take()
        };
        let end = match request {
            Some(request) => 'given: {
                // From now on it is not given out again, whatever happens to this process.
                if entry.durable
                    && let Err(error) = self.mark_started(&entry).await
                {
                    break 'given End::Failed(records::problem(&error));
                }
                let agent = self.agent(&host);
                let start = StartRun {
                    id: entry.id,
                    request,
                };
                match agent.ask(&start).await {
                    Ok(()) => self.follow(&entry, &host).await,
                    Err(problem) => End::Failed(problem),
                }
            }
            None => End::Failed(Problem::new(Code::Internal, "the run was given out twice")),
        };
        self.finish(&entry, &end);
    }

    /// Reads the run's log at its host, to the end.
    async fn follow(&self, entry: &Entry, host: &str) -> End {
        let agent = self.agent(host);
        if entry.now().cancelled {
            // Asked for before the host had it.
            if let Err(problem) = agent.ask(&StopRun { id: entry.id }).await {
                tracing::warn!(run = %entry.id, %problem, "a cancelled run was not stopped");
            }
        }
        let mut after = 0;
        loop {
            let call = FollowRun {
                id: entry.id,
                read: ReadLog {
                    after,
                    max_bytes: FOLLOW_BYTES,
                    wait_ms: FOLLOW_MS,
                    whole: false,
                },
            };
            match agent.ask(&call).await {
                Ok(page) => {
                    if page.gap.is_some() {
                        tracing::error!(run = %entry.id, "a part of a run's log is lost");
                    }
                    for (number, event) in page.events {
                        after = number;
                        match event {
                            Event::Ended(end) => return *end,
                            event => {
                                entry.count(&event);
                                entry.log.append(event);
                            }
                        }
                    }
                }
                Err(problem) if problem.code == Code::NotFound => {
                    let cause = format!("the host {host} does not know the run any more");
                    return lost(&cause);
                }
                Err(problem) => {
                    tracing::warn!(run = %entry.id, host, %problem, "cannot follow a run");
                    if !self.state().hosts.is_there(host, Instant::now()) {
                        return lost(&format!("the host {host} is silent"));
                    }
                    sleep(RETRY).await;
                }
            }
        }
    }
}

fn lost(cause: &str) -> End {
    End::Failed(Problem::new(Code::Unavailable, cause).with_remedy("ask for it again"))
}
