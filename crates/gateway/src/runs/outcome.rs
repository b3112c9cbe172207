//! From a run's log to its outcome.

use std::time::Duration;

use firelane_model::id::RunId;
use firelane_wire::bus::AwaitRun;
use firelane_wire::event::End;
use firelane_wire::problem::Problem;
use firelane_wire::run::{Outcome, Run};

use crate::Gateway;
use crate::follow::Told;

/// Waits for the end of a run; gives it with its outcome.
pub(super) async fn wait(gateway: &Gateway, tenant: &str, id: RunId) -> Result<Run, Problem> {
    let mut told = Told::default();
    let run = loop {
        let call = AwaitRun {
            tenant: tenant.into(),
            id,
            read: told.next(),
        };
        let longer = Duration::from_millis(call.read.wait_ms);
        let awaited = gateway.coordinator.ask_for(&call, longer).await?;
        told.take(awaited.page)?;
        if let Some(run) = awaited.run {
            break run;
        }
    };
    let Some(End::Done { ending, ran }) = told.end() else {
        return Ok(run);
    };
    let (output, files) = told.into_parts();
    let outcome = Outcome {
        ending,
        stdout: output.stdout,
        stdout_base64: output.stdout_base64,
        stderr: output.stderr,
        stderr_base64: output.stderr_base64,
        files,
        ran,
    };
    Ok(Run {
        outcome: Some(outcome),
        ..run
    })
}
