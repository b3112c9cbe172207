//! From a run's log to its outcome.

use firelane_model::id::RunId;
use firelane_wire::bus::GetRun;
use firelane_wire::event::End;
use firelane_wire::problem::Problem;
use firelane_wire::run::{Outcome, Run};

use crate::Gateway;
use crate::follow::Told;

/// Waits for the end of a run; gives it with its outcome.
pub(super) async fn wait(gateway: &Gateway, tenant: &str, id: RunId) -> Result<Run, Problem> {
    let mut told = Told::all(&gateway.log_of_run(tenant, id)).await?;
    let get = GetRun {
        tenant: tenant.into(),
        id,
    };
    let run = gateway.coordinator.ask(&get).await?;
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
