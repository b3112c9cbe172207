//! cloud-init's work, until it is done; where there is no cloud-init, the same work by ourselves.
//!
//! cloud-init's own `status --wait` has no bound and ends with 2 for a mere warning, so its status
//! is asked for again and again. What counts in the end is what the preparation itself wrote down,
//! [`STATUS`]: cloud-init calls itself done also when a script of ours has failed.

use firelane_model::lane::{Lane, Step};
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use super::create::tail;
use super::reach::{log_in, must};
use crate::access::{Command, Host, HostError};
use crate::cloudinit::{Download, Preparation, prepare_script};
use crate::crew::{Crew, StepError};
use crate::progress::Event;

/// What the preparation wrote down on the machine.
pub(crate) const STATUS: &str = "/run/firelane/prepare.json";
/// What cloud-init writes when it is done ("Boot stages", "final").
const FINISHED: &str = "/var/lib/cloud/instance/boot-finished";
/// Logs that explain a failure.
const LOGS: [&str; 2] = ["/var/log/cloud-init-output.log", "/var/log/cloud-init.log"];

/// How far the preparation is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Prepared {
    /// The last thing that was begun.
    pub(crate) step: String,
    /// `running`, `ready` or `failed`.
    pub(crate) status: String,
    /// What was found of KVM: `usable`, `absent`, `unusable` or `skipped`.
    pub(crate) kvm: String,
    /// Why it failed.
    #[serde(default)]
    pub(crate) cause: Option<String>,
}

/// What `cloud-init status --format json` says, as far as it counts. Its fields differ between
/// versions: `extended_status` and `errors` are of 23.4 and later.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct CloudInit {
    status: String,
    detail: String,
    errors: Vec<String>,
}

/// Waits until the machine is prepared; with this Firecracker, where there is no cloud-init to see to it.
pub(crate) async fn prepare(
    crew: &Crew<'_>,
    lane: &Lane,
    firecracker: Option<&Download>,
) -> Result<(), StepError> {
    let mut host = log_in(crew, lane, Step::Prepare).await?;
    if crew.provider.capabilities().user_data.is_none() {
        return by_ourselves(crew, &*host, lane, firecracker).await;
    }
    let begun = Instant::now();
    let mut said = String::new();
    loop {
        let message = match look(crew, &*host).await {
            Ok(Look::Ready) => return Ok(()),
            Ok(Look::NotYet(message)) => message,
            // It boots once more, or its SSH server does.
            Err(StepError::Host(HostError::Unreachable { .. })) => {
                host = log_in(crew, lane, Step::Prepare).await?;
                continue;
            }
            Err(error) => {
                show_logs(crew, &*host).await;
                return Err(error);
            }
        };
        if message != said {
            crew.progress.tell(&Event::Note {
                step: Step::Prepare,
                message: message.trim().to_owned(),
            });
            said = message;
        }
        if begun.elapsed() >= crew.timing.prepare {
            show_logs(crew, &*host).await;
            let what = "cloud-init is not done".to_owned();
            let after = crew.timing.prepare;
            return Err(StepError::Late { what, after });
        }
        sleep(crew.timing.poll).await;
    }
}

/// What one look shows.
enum Look {
    Ready,
    /// What cloud-init is at.
    NotYet(String),
}

async fn look(crew: &Crew<'_>, host: &dyn Host) -> Result<Look, StepError> {
    if let Some(prepared) = prepared(host).await? {
        match prepared.status.as_str() {
            "ready" => return ready(crew, &prepared).map(|()| Look::Ready),
            "failed" => return Err(failed(&prepared)),
            _ => {}
        }
    }
    let status = cloud_init(host).await?;
    match status.status.as_str() {
        // Others of its modules may have failed, and ours be yet to come; or it has come to its end.
        "error" if is_finished(host).await? => match prepared(host).await? {
            Some(prepared) if prepared.status == "ready" => {
                ready(crew, &prepared).map(|()| Look::Ready)
            }
            _ => {
                let cause = status.errors.join("; ");
                Err(StepError::Machine(format!("cloud-init failed: {cause}")))
            }
        },
        "disabled" => {
            let message = "cloud-init is disabled on this machine";
            Err(StepError::Machine(message.into()))
        }
        // Done, and our part has written nothing: it was never run.
        "done" | "degraded" if prepared(host).await?.is_none() => {
            let message = format!("cloud-init is done, and {STATUS} is missing");
            Err(StepError::Machine(message))
        }
        _ => Ok(Look::NotYet(format!(
            "cloud-init: {} {}",
            status.status, status.detail
        ))),
    }
}

fn ready(crew: &Crew<'_>, prepared: &Prepared) -> Result<(), StepError> {
    crew.progress.tell(&Event::Note {
        step: Step::Prepare,
        message: format!("KVM: {}", prepared.kvm),
    });
    Ok(())
}

fn failed(prepared: &Prepared) -> StepError {
    let cause = prepared.cause.as_deref().unwrap_or("no cause was told");
    StepError::Machine(format!(
        "the machine could not be prepared, at {}: {cause}",
        prepared.step
    ))
}

/// What the preparation has written so far. None: nothing.
pub(crate) async fn prepared(host: &dyn Host) -> Result<Option<Prepared>, StepError> {
    let output = host
        .run(&Command::new(["cat", STATUS]).as_root())
        .await
        .map_err(StepError::from)?;
    if output.code != 0 {
        return Ok(None);
    }
    // Written whole and renamed: what is there can be read, or is not of ours.
    serde_json::from_slice(&output.stdout)
        .map(Some)
        .map_err(|error| StepError::Machine(format!("{STATUS} of the machine: {error}")))
}

/// Whether cloud-init has come to its end, well or not: it writes [`FINISHED`] last.
async fn is_finished(host: &dyn Host) -> Result<bool, StepError> {
    let command = Command::new(["test", "-e", FINISHED]).as_root();
    Ok(host.run(&command).await?.code == 0)
}

async fn cloud_init(host: &dyn Host) -> Result<CloudInit, StepError> {
    let command = Command::new(["cloud-init", "status", "--format", "json"]).as_root();
    let output = host.run(&command).await?;
    // Its exit code is 1 for errors and 2 for warnings, with the same answer.
    match serde_json::from_slice(&output.stdout) {
        Ok(status) => Ok(status),
        Err(_) if output.code == 127 => {
            let message =
                "the machine has no cloud-init: its image is another one than was asked for";
            Err(StepError::Machine(message.into()))
        }
        Err(_) => Ok(CloudInit::default()),
    }
}

/// Runs the preparation over the connection.
async fn by_ourselves(
    crew: &Crew<'_>,
    host: &dyn Host,
    lane: &Lane,
    firecracker: Option<&Download>,
) -> Result<(), StepError> {
    let script = prepare_script(&Preparation {
        kvm: lane.terms.kvm,
        ends: None,
        root_key: None,
        firecracker,
    });
    let command = Command::new(["sh", "-s"])
        .as_root()
        .reading(script)
        .within(crew.timing.prepare);
    let run = must(host, "the preparation", &command).await;
    match prepared(host).await? {
        Some(prepared) if prepared.status == "ready" => run.and(ready(crew, &prepared)),
        Some(prepared) => Err(failed(&prepared)),
        None => Err(run.err().unwrap_or_else(|| {
            StepError::Machine(format!("the preparation ended, and {STATUS} is missing"))
        })),
    }
}

async fn show_logs(crew: &Crew<'_>, host: &dyn Host) {
    for log in LOGS {
        let command = Command::new(["tail", "-n", "60", log]).as_root();
        if let Ok(output) = host.run(&command).await
            && output.code == 0
        {
            crew.progress.tell(&Event::Log {
                step: Step::Prepare,
                source: log.to_owned(),
                text: tail(&String::from_utf8_lossy(&output.stdout)),
            });
            return;
        }
    }
}
