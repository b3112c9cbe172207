//! Pipes of an agent, from this side. One that is not used up is closed when it is dropped: whoever
//! leaves, the agent keeps nothing for them.

use std::time::Duration;

use firelane_store::bus::Calls;
use firelane_wire::bus::{
    ClosePipe, FinishPipe, OpenPipe, PipeDone, PipePart, Piped, ReadPipe, WritePipe,
};
use firelane_wire::file::Entry;
use firelane_wire::problem::Problem;
use uuid::Uuid;

use super::super::place::Place;
use crate::whole::whole;

/// How long the end of what was put may take beside an ordinary call: what is still on its way is
/// written before the answer.
const FINISHING: Duration = Duration::from_secs(60);

/// A pipe that is open.
pub(super) struct Pipe {
    agent: Calls,
    pipe: Uuid,
    open: bool,
}

impl Pipe {
    /// Opens one; with the file, if it is one out of a file.
    pub(super) async fn open(
        Place { agent, sandbox }: Place,
        what: Piped,
    ) -> Result<(Pipe, Option<Entry>), Problem> {
        whole(async move {
            let opened = agent.ask(&OpenPipe { sandbox, what }).await?;
            let pipe = Pipe {
                agent,
                pipe: opened.pipe,
                open: true,
            };
            Ok((pipe, opened.entry))
        })
        .await
    }

    /// The next part; an empty one if there is none for so long.
    pub(super) async fn read(&mut self, wait: Duration) -> Result<PipePart, Problem> {
        let call = ReadPipe {
            pipe: self.pipe,
            wait_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
        };
        let part = self.agent.ask_for(&call, wait).await?;
        self.open = !part.end;
        Ok(part)
    }

    /// Sends the next part; waits for room for another.
    pub(super) async fn write(&mut self, bytes: Vec<u8>) -> Result<(), Problem> {
        let pipe = self.pipe;
        self.agent.ask(&WritePipe { pipe, bytes }).await
    }

    /// Nothing follows; waits until all of it is done.
    pub(super) async fn finish(mut self) -> Result<PipeDone, Problem> {
        let finish = FinishPipe { pipe: self.pipe };
        let done = self.agent.ask_for(&finish, FINISHING).await?;
        self.open = false;
        Ok(done)
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        if !self.open {
            return;
        }
        let (agent, pipe) = (self.agent.clone(), self.pipe);
        tokio::spawn(async move {
            if let Err(problem) = agent.ask(&ClosePipe { pipe }).await {
                // The agent closes it when nobody has used it for a while.
                tracing::debug!(%pipe, %problem, "a pipe was not closed");
            }
        });
    }
}
