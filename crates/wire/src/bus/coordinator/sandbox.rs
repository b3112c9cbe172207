//! What the coordinator is asked about sandboxes and their snapshots.
//!
//! Programs and files of a sandbox are its agent's: [`FindSandbox`] tells which host to ask.

use std::collections::BTreeMap;

use firelane_model::id::{SandboxId, SnapshotId};
use serde::{Deserialize, Serialize};

use super::Caller;
use crate::bus::Call;
use crate::page::{Page, PageQuery};
use crate::sandbox::{Forks, NewSandbox, Sandbox, SandboxPatch};
use crate::snapshot::Snapshot;

/// A sandbox to be made; answered when it can be used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CreateSandbox {
    /// Who asks.
    pub caller: Caller,
    /// What it shall be.
    pub request: NewSandbox,
}

impl Call for CreateSandbox {
    const NAME: &'static str = "sandbox.create";
    type Answer = Sandbox;
}

/// A sandbox as it is now, or as it was at its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetSandbox {
    /// Whose it is.
    pub tenant: String,
    /// Its name.
    pub id: SandboxId,
}

impl Call for GetSandbox {
    const NAME: &'static str = "sandbox.get";
    type Answer = Sandbox;
}

/// The host of a sandbox that is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FindSandbox {
    /// Whose it is.
    pub tenant: String,
    /// Its name.
    pub id: SandboxId,
}

impl Call for FindSandbox {
    const NAME: &'static str = "sandbox.find";
    /// The host's name.
    type Answer = String;
}

/// Sandboxes, newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListSandboxes {
    /// Whose.
    pub tenant: String,
    /// Only those that have all of these labels.
    pub labels: BTreeMap<String, String>,
    /// Those that are gone too.
    pub gone: bool,
    /// Which page.
    pub page: PageQuery,
}

impl Call for ListSandboxes {
    const NAME: &'static str = "sandbox.list";
    type Answer = Page<Sandbox>;
}

/// A change of a sandbox; answered when it is done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChangeSandbox {
    /// Who asks.
    pub caller: Caller,
    /// Its name.
    pub id: SandboxId,
    /// What shall change.
    pub change: SandboxChange,
}

/// What can be changed of a sandbox.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SandboxChange {
    /// Its processors stop.
    Pause,
    /// They go on.
    Resume,
    /// It is destroyed; one that is gone already stays so.
    Destroy,
    /// Its time, its policy or its labels.
    Patch(SandboxPatch),
    /// It goes back to a snapshot.
    RollBack(SnapshotId),
}

impl Call for ChangeSandbox {
    const NAME: &'static str = "sandbox.change";
    type Answer = Sandbox;
}

/// Sandboxes to be made that begin as this one is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForkSandbox {
    /// Who asks.
    pub caller: Caller,
    /// Its name.
    pub id: SandboxId,
    /// How many.
    pub count: u32,
}

impl Call for ForkSandbox {
    const NAME: &'static str = "sandbox.fork";
    type Answer = Forks;
}

/// A snapshot to be taken of a sandbox, and kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakeSnapshot {
    /// Who asks.
    pub caller: Caller,
    /// The sandbox.
    pub sandbox: SandboxId,
}

impl Call for TakeSnapshot {
    const NAME: &'static str = "snapshot.take";
    type Answer = Snapshot;
}

/// One snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetSnapshot {
    /// Whose it is.
    pub tenant: String,
    /// Its name.
    pub id: SnapshotId,
}

impl Call for GetSnapshot {
    const NAME: &'static str = "snapshot.get";
    type Answer = Snapshot;
}

/// Snapshots, newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListSnapshots {
    /// Whose.
    pub tenant: String,
    /// Only those of this sandbox.
    pub sandbox: Option<SandboxId>,
    /// Which page.
    pub page: PageQuery,
}

impl Call for ListSnapshots {
    const NAME: &'static str = "snapshot.list";
    type Answer = Page<Snapshot>;
}

/// Removes a snapshot. Sandboxes that began from it stay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoveSnapshot {
    /// Who asks.
    pub caller: Caller,
    /// Its name.
    pub id: SnapshotId,
}

impl Call for RemoveSnapshot {
    const NAME: &'static str = "snapshot.remove";
    type Answer = ();
}
