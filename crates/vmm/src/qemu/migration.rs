//! Saving a microVM's state, and loading it: QEMU's migration.
//!
//! To and from a file, it is without the memory, which is a file that both sides map: only the
//! devices' state is carried, some 50 KiB, whatever the size of the guest. Memory that is private to
//! a VMM is carried whole. Source: QEMU, `docs/devel/migration.rst` and
//! `qapi/migration.json` (7.2 and 10.0); the capability is `x-ignore-shared`.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
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

const OUTGOING: &str = "migrate";
const INCOMING: &str = "migrate-incoming";
/// Bytes per second: no bound. QEMU's own is 128 MiB per second.
const MAX_BANDWIDTH: u64 = 1 << 40;
/// Milliseconds: QEMU need not send anything twice to keep a pause short. Its own is 300.
const MAX_DOWNTIME_MS: u64 = 600_000;

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
    run(monitor, OUTGOING, file).await
}

/// Reads the state of a microVM that waits for it from `file`; it stays paused.
pub(super) async fn load(monitor: &mut Qmp, file: &File) -> Result<(), MigrationError> {
    // QEMU would tell the network where the guest is now, by frames that the guest never sent.
    let silent = json!({ "announce-rounds": 0 });
    monitor
        .command_with("migrate-set-parameters", &silent)
        .await?;
    run(monitor, INCOMING, file).await
}

async fn run(monitor: &mut Qmp, command: &'static str, file: &File) -> Result<(), MigrationError> {
    begin(monitor, command, file.as_fd(), false).await?;
    done(monitor, Instant::now() + DEADLINE).await
}

/// Writes the memory and state of a paused microVM to `file`. Whatever comes of it, the microVM can
/// go on.
pub(super) async fn save_whole(
    monitor: &mut Qmp,
    file: &File,
    deadline: Instant,
) -> Result<(), MigrationError> {
    at_once(monitor).await?;
    begin(monitor, OUTGOING, file.as_fd(), true).await?;
    let saved = done(monitor, deadline).await;
    if saved.is_err() {
        // Refused if it has come to its end, which is as good.
        let _ = monitor.command("migrate_cancel").await;
        // While it is not over, the microVM could not go on.
        let _ = done(monitor, Instant::now() + DEADLINE).await;
    }
    saved
}

/// Reads memory and state from `file`, into a microVM that waits for it; it stays paused.
pub(super) async fn load_whole(
    monitor: &mut Qmp,
    file: &File,
    deadline: Instant,
) -> Result<(), MigrationError> {
    begin(monitor, INCOMING, file.as_fd(), true).await?;
    done(monitor, deadline).await
}

async fn begin(
    monitor: &mut Qmp,
    command: &'static str,
    file: BorrowedFd<'_>,
    memory: bool,
) -> Result<(), QmpError> {
    let shared = json!({ "capability": "x-ignore-shared", "state": !memory });
    let arguments = json!({ "capabilities": [shared] });
    monitor
        .command_with("migrate-set-capabilities", &arguments)
        .await?;
    monitor.give(STATE, file).await?;
    let arguments = json!({ "uri": format!("fd:{STATE}") });
    monitor.command_with(command, &arguments).await.map(drop)
}

/// As fast as it goes, in one pass: the source is paused already, so there is nobody to be gentle to.
async fn at_once(monitor: &mut Qmp) -> Result<(), QmpError> {
    let arguments = json!({ "max-bandwidth": MAX_BANDWIDTH, "downtime-limit": MAX_DOWNTIME_MS });
    monitor
        .command_with("migrate-set-parameters", &arguments)
        .await
        .map(drop)
}

async fn done(monitor: &mut Qmp, deadline: Instant) -> Result<(), MigrationError> {
    let failed = |reason: String| Err(MigrationError::Failed { reason });
    loop {
        let answer = monitor.command("query-migrate").await?;
        match answer.get("status").and_then(Value::as_str) {
            Some("completed") => return Ok(()),
            Some("failed" | "cancelled") => {
                let reason = answer.get("error-desc").and_then(Value::as_str);
                return failed(reason.unwrap_or("QEMU gives no reason").into());
            }
            _ if Instant::now() > deadline => return failed("it took too long".into()),
            _ => sleep(POLL).await,
        }
    }
}
