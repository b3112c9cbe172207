//! Where a log is read, and where input for its program goes.

use std::time::Duration;

use firelane_model::id::{ExecId, RunId};
use firelane_store::bus::Calls;
use firelane_wire::bus::{FeedExec, FollowExec, ReadRun, SandboxRef, SendRun};
use firelane_wire::event::{Input, LogPage, ReadLog};
use firelane_wire::problem::Problem;

/// The log of one program, and who has it.
#[derive(Clone)]
pub(crate) enum Log {
    /// Of a run: the coordinator has it, and its record.
    Run {
        coordinator: Calls,
        tenant: String,
        id: RunId,
    },
    /// Of an exec: the agent of its sandbox has it.
    Exec {
        agent: Calls,
        sandbox: SandboxRef,
        id: ExecId,
    },
}

impl Log {
    /// A page of it. What is missing between the last event that the reader has and the first of the
    /// page is told as a gap, whether or not who keeps the log knows of it: of a record that was cut
    /// only the end is left.
    pub(crate) async fn read(&self, read: ReadLog) -> Result<LogPage, Problem> {
        let longer = Duration::from_millis(read.wait_ms);
        let mut page = match self {
            Log::Run {
                coordinator,
                tenant,
                id,
            } => {
                let call = ReadRun {
                    tenant: tenant.clone(),
                    id: *id,
                    read,
                };
                coordinator.ask_for(&call, longer).await?
            }
            Log::Exec { agent, sandbox, id } => {
                let call = FollowExec {
                    sandbox: sandbox.clone(),
                    id: *id,
                    read,
                };
                agent.ask_for(&call, longer).await?
            }
        };
        page.gap = page.gap.or_else(|| missing(read.after, &page));
        Ok(page)
    }

    /// Sends something to the program.
    pub(crate) async fn feed(&self, input: Input) -> Result<(), Problem> {
        match self {
            Log::Run {
                coordinator,
                tenant,
                id,
            } => {
                let call = SendRun {
                    tenant: tenant.clone(),
                    id: *id,
                    input,
                };
                coordinator.ask(&call).await
            }
            Log::Exec { agent, sandbox, id } => {
                let call = FeedExec {
                    sandbox: sandbox.clone(),
                    id: *id,
                    input,
                };
                agent.ask(&call).await
            }
        }
    }
}

/// First and last number of what lies between this event and the page.
pub(super) fn missing(after: u64, page: &LogPage) -> Option<(u64, u64)> {
    let (first, _) = page.events.first()?;
    let next = after.saturating_add(1);
    (*first > next).then(|| (next, first - 1))
}

#[cfg(test)]
mod tests {
    use firelane_wire::event::Event;

    use super::*;

    #[test]
    fn numbers_that_are_skipped_are_a_gap() {
        let check = |after, first: Option<u64>, expected| {
            let events = first.map(|number| (number, Event::Stdout(Vec::new())));
            let page = LogPage {
                events: events.into_iter().collect(),
                ..LogPage::default()
            };
            assert_eq!(missing(after, &page), expected, "{first:?} after {after}");
        };
        check(0, Some(1), None);
        check(0, Some(3), Some((1, 2)));
        check(4, Some(5), None);
        check(4, Some(6), Some((5, 5)));
        check(4, None, None);
        // A client may say that it knows more than there is.
        check(u64::MAX, Some(6), None);
    }
}
