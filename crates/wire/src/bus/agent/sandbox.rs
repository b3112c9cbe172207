//! What an agent is asked about sandboxes, and about the snapshots that it keeps of them.

use firelane_model::id::{SandboxId, SnapshotId};
use firelane_model::sandbox::Reason;
use serde::{Deserialize, Serialize};

use crate::bus::Call;
use crate::network::NetworkSeen;
use crate::problem::Problem;
use crate::sandbox::{Idle, NewSandbox, SandboxState};

/// How long it may take to make, save, fork or roll back a sandbox, beside an ordinary call, in
/// seconds: its template may have no snapshot yet, and its memory goes to a disk.
pub const SLOW_CALL_S: u64 = 600;

/// A sandbox that is meant, and whose it must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxRef {
    /// Whose it is.
    pub tenant: String,
    /// Its name.
    pub id: SandboxId,
}

/// A sandbox as its agent sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxSeen {
    /// Where it is.
    pub state: SandboxState,
    /// Why it ends or has ended.
    pub reason: Option<Reason>,
    /// Grows with each change of the two.
    pub revision: u64,
    /// Microseconds of processor time that its programs and everything around them used so far.
    pub cpu_us: u64,
    /// What happened in its network so far, if its template gives it one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkSeen>,
}

/// A sandbox to be made; answered when it can be used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MakeSandbox {
    /// What it shall be called, and whose it is.
    pub sandbox: SandboxRef,
    /// What it shall be.
    pub request: NewSandbox,
}

impl Call for MakeSandbox {
    const NAME: &'static str = "sandbox.make";
    type Answer = SandboxSeen;
}

/// How a sandbox is; once it is other than at `revision`, or after a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LookSandbox {
    /// Which.
    pub sandbox: SandboxRef,
    /// The revision that the asker knows; 0 for none.
    pub revision: u64,
    /// How long to wait for another one, in milliseconds.
    pub wait_ms: u64,
}

impl Call for LookSandbox {
    const NAME: &'static str = "sandbox.look";
    type Answer = SandboxSeen;
}

/// A change of a sandbox; answered when it is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TellSandbox {
    /// Which.
    pub sandbox: SandboxRef,
    /// What shall be.
    pub order: SandboxOrder,
}

/// What a sandbox can be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SandboxOrder {
    /// Its processors stop.
    Pause,
    /// They go on.
    Resume,
    /// It is destroyed.
    Destroy,
    /// Its time and its policy change. What is absent stays.
    Terms {
        /// Seconds from now after which it is destroyed.
        ttl_s: Option<u64>,
        /// What happens when it does nothing.
        idle: Option<Idle>,
    },
    /// It goes back to a snapshot that this host has.
    RollBack {
        /// Its name.
        snapshot: SnapshotId,
    },
}

impl Call for TellSandbox {
    const NAME: &'static str = "sandbox.tell";
    type Answer = SandboxSeen;
}

/// A snapshot of a sandbox to be taken, and kept by this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SaveSandbox {
    /// Which.
    pub sandbox: SandboxRef,
    /// What the snapshot shall be called.
    pub snapshot: SnapshotId,
}

/// A snapshot that a host has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotHere {
    /// Its name.
    pub id: SnapshotId,
    /// Whose it is.
    pub tenant: String,
    /// Template of the sandbox that it was taken of.
    pub template: String,
    /// Bytes on the host's disk.
    pub size_bytes: u64,
}

impl Call for SaveSandbox {
    const NAME: &'static str = "sandbox.save";
    type Answer = SnapshotHere;
}

/// Sandboxes to be made that begin as one is at this moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitSandbox {
    /// Which.
    pub sandbox: SandboxRef,
    /// What they shall be called.
    pub forks: Vec<SandboxId>,
}

impl Call for SplitSandbox {
    const NAME: &'static str = "sandbox.split";
    /// One for each, in order.
    type Answer = Vec<Result<SandboxSeen, Problem>>;
}

/// The snapshots that this host has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HaveSnapshots {}

impl Call for HaveSnapshots {
    const NAME: &'static str = "snapshot.have";
    type Answer = Vec<SnapshotHere>;
}

/// Removes a snapshot; one that is not here is gone already. Sandboxes that began from it stay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropSnapshot {
    /// Its name.
    pub id: SnapshotId,
}

impl Call for DropSnapshot {
    const NAME: &'static str = "snapshot.drop";
    type Answer = ();
}
