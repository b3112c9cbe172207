//! Sandboxes that begin as another one is.

use std::sync::Arc;

use firelane_model::sandbox::Reason;
use firelane_store::db::Sandbox as Record;
use firelane_wire::bus::{ForkSandbox, SandboxRef, SandboxSeen, SplitSandbox};
use firelane_wire::problem::{Code, Problem};
use firelane_wire::sandbox::{Fork, ForkRequest, Forks, Sandbox};

use super::create::{SLOW, new_id};
use super::live::Live;
use super::record::{About, audit, gone, new_record};
use crate::records::{json, now};
use crate::runs::going_down;
use crate::service::Coordinator;

impl Coordinator {
    /// Forks a sandbox. Each fork fails alone: one that its key may not have too.
    pub(crate) async fn fork_sandbox(self: Arc<Self>, call: ForkSandbox) -> Result<Forks, Problem> {
        let ForkSandbox { caller, id, count } = call;
        ForkRequest { count }.check()?;
        if self.stop.is_cancelled() {
            return Err(going_down());
        }
        let parent = self.sandbox_record(&caller.tenant, id).await?;
        if !parent.live {
            return Err(gone(&parent));
        }
        let about = About {
            // It has one of its own.
            network: None,
            ..About::of(&parent)?
        };
        let held: Vec<Result<Arc<Live>, Problem>> = {
            let mut state = self.state();
            (0..count)
                .map(|_| {
                    let pass = self.admit_sandbox(&mut state, &caller)?;
                    let of = SandboxRef {
                        tenant: caller.tenant.clone(),
                        id: new_id(),
                    };
                    Ok(state.hold(of, caller.key, parent.host.clone(), pass))
                })
                .collect()
        };
        let admitted: Vec<Arc<Live>> = held.iter().flatten().map(Arc::clone).collect();
        let created = now().as_millisecond();
        let new = admitted.iter().map(|live| {
            // It has what is left of its parent's time.
            let times = (created, parent.expires);
            let record = new_record(live, &about, Some(id), parent.labels.clone(), times);
            let detail = json(&serde_json::json!({ "parent": id }));
            let row = audit(&caller, "sandbox.fork", &live.of.id, detail);
            (record, row)
        });
        if let Err(problem) = self.insert_sandboxes(new.collect()).await {
            for live in &admitted {
                self.let_go(live, None);
            }
            return Err(problem);
        }
        let split = self.split(&parent, &caller.tenant, &admitted).await;
        let mut split = match split {
            Ok(split) => split.into_iter(),
            Err(problem) => {
                for live in &admitted {
                    self.end_sandbox(live, Reason::Failed).await?;
                }
                return Err(problem);
            }
        };
        let mut forks = Vec::with_capacity(held.len());
        for live in held {
            let fork = match live {
                Ok(live) => {
                    let made = split.next().unwrap_or_else(|| Err(unanswered()));
                    self.made(&live, made).await
                }
                Err(problem) => Err(problem),
            };
            forks.push(told(fork));
        }
        Ok(Forks { forks })
    }

    async fn split(
        &self,
        parent: &Record,
        tenant: &str,
        forks: &[Arc<Live>],
    ) -> Result<Vec<Result<SandboxSeen, Problem>>, Problem> {
        if forks.is_empty() {
            return Ok(Vec::new());
        }
        let id = parent.id.parse();
        let split = SplitSandbox {
            sandbox: SandboxRef {
                tenant: tenant.into(),
                id: id.map_err(|_| crate::records::unreadable(&parent.id))?,
            },
            forks: forks.iter().map(|live| live.of.id).collect(),
        };
        self.agent(&parent.host).ask_for(&split, SLOW).await
    }
}

/// A host that answers for fewer forks than it was asked for.
fn unanswered() -> Problem {
    Problem::new(
        Code::Unavailable,
        "the host did not tell what became of this fork",
    )
}

fn told(fork: Result<Sandbox, Problem>) -> Fork {
    match fork {
        Ok(sandbox) => Fork {
            sandbox: Some(sandbox),
            problem: None,
        },
        Err(problem) => Fork {
            sandbox: None,
            problem: Some(problem),
        },
    }
}
