//! Saving a microVM's state, and loading it: QEMU's migration, to a file, without the memory.
//!
//! The memory is a file that both sides map, so only the devices' state is carried: some 50 KiB,
//! whatever the size of the guest. Source: QEMU, `docs/devel/migration.rst` and
//! `qapi/migration.json` (7.2 and 10.0); the capability is `x-ignore-shared`.

use std::fs::File;
use std::os::fd::AsFd;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::qmp::{Qmp, QmpError};

/// The monitor's name for the file.
const STATE: &str = "state";
/// How often QEMU is asked whether it is done.
const POLL: Duration = Duration::from_millis(1);
/// How long the state may take: it is small, whatever the guest.
const DEADLINE: Duration = Duration::from_secs(30);

/// Why the state was not saved or loaded.
#[derive(Debug, thiserror::Error)]
pub(super) enum MigrationError {
    #[error(transparent)]
    Refused(#[from] QmpError),
    #[error("{reason}")]
    Failed { reason: String },
}

/// Writes the state of a paused microVM to `file`.
pub(super) async fn save(monitor: &mut Qmp, file: &File) -> Result<(), MigrationError> {
    run(monitor, "migrate", file).await
}

/// Reads the state of a microVM that waits for it from `file`; it stays paused.
pub(super) async fn load(monitor: &mut Qmp, file: &File) -> Result<(), MigrationError> {
    run(monitor, "migrate-incoming", file).await
}

async fn run(monitor: &mut Qmp, command: &'static str, file: &File) -> Result<(), MigrationError> {
    without_memory(monitor).await?;
    monitor.give(STATE, file.as_fd()).await?;
    let arguments = json!({ "uri": format!("fd:{STATE}") });
    monitor.command_with(command, &arguments).await?;
    done(monitor).await
}

async fn without_memory(monitor: &mut Qmp) -> Result<(), QmpError> {
    let shared = json!({ "capability": "x-ignore-shared", "state": true });
    let arguments = json!({ "capabilities": [shared] });
    monitor
        .command_with("migrate-set-capabilities", &arguments)
        .await
        .map(drop)
}

async fn done(monitor: &mut Qmp) -> Result<(), MigrationError> {
    let deadline = Instant::now() + DEADLINE;
    let failed = |reason: String| Err(MigrationError::Failed { reason });
    loop {
        let answer = monitor.command("query-migrate").await?;
        match answer.get("status").and_then(Value::as_str) {
            Some("completed") => return Ok(()),
            Some("failed" | "cancelled") => {
                let reason = answer.get("error-desc").and_then(Value::as_str);
                return failed(reason.unwrap_or("QEMU gives no reason").into());
            }
            _ if Instant::now() > deadline => {
                return failed(format!("it took longer than {DEADLINE:?}"));
            }
            _ => sleep(POLL).await,
        }
    }
}
