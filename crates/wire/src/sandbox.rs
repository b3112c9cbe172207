//! Sandboxes: microVMs that stay for more than one program.

use std::collections::BTreeMap;

use firelane_model::id::{SandboxId, SnapshotId};
use firelane_model::sandbox::Reason;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::network::NetworkSeen;
use crate::problem::Problem;

/// Life of a sandbox that names none, in seconds.
pub const DEFAULT_TTL_S: u64 = 3600;
/// Longest life, from the moment that it is asked for, in seconds: one week.
pub const MAX_TTL_S: u64 = 7 * 86_400;
/// Most forks of one request.
pub const MAX_FORKS: u32 = 100;

/// A sandbox to be made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewSandbox {
    /// Its template.
    #[serde(default = "default_template")]
    #[schema(default = "default")]
    pub template: String,
    /// A snapshot to begin from, in place of the template's own.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub snapshot: Option<SnapshotId>,
    /// Seconds after which it is destroyed.
    #[serde(default = "default_ttl")]
    #[schema(minimum = 1, maximum = 604_800, default = 3600)]
    pub ttl_s: u64,
    /// What happens when it does nothing.
    #[serde(default)]
    pub idle: Option<Idle>,
    /// Variables of every program's environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Names for the caller's own use.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// What happens to a sandbox in which no program runs and no processor works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Idle {
    /// Seconds of doing nothing.
    #[schema(minimum = 1)]
    pub after_s: u64,
    /// What happens then.
    pub then: IdleThen,
}

/// What happens to an idle sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum IdleThen {
    /// Its processors stop; the next request wakes it.
    Pause,
    /// It is destroyed.
    Destroy,
}

/// Where a sandbox is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SandboxState {
    /// Its microVM is being made.
    Creating,
    /// It can be used.
    Running,
    /// Its processors are being stopped.
    Pausing,
    /// Its processors are stopped; the next program or file that is asked for wakes it.
    Paused,
    /// Its processors are being continued.
    Resuming,
    /// A snapshot of it is being taken.
    Saving,
    /// It is being put back to a snapshot.
    RollingBack,
    /// It is being destroyed.
    Destroying,
    /// It is gone.
    Destroyed,
}

impl SandboxState {
    /// The name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            SandboxState::Creating => "creating",
            SandboxState::Running => "running",
            SandboxState::Pausing => "pausing",
            SandboxState::Paused => "paused",
            SandboxState::Resuming => "resuming",
            SandboxState::Saving => "saving",
            SandboxState::RollingBack => "rolling_back",
            SandboxState::Destroying => "destroying",
            SandboxState::Destroyed => "destroyed",
        }
    }
}

/// A sandbox, as it is now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Sandbox {
    /// Its name.
    #[schema(value_type = String, example = "sbx-0198c0de0000700080000000c0ffee00")]
    pub id: SandboxId,
    /// Where it is.
    pub state: SandboxState,
    /// Why it is gone, or about to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "ttl_over")]
    pub reason: Option<Reason>,
    /// Its template.
    pub template: String,
    /// The snapshot that it began from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub snapshot: Option<SnapshotId>,
    /// The sandbox that it is a fork of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub parent: Option<SandboxId>,
    /// The host that has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// When it was asked for (RFC 3339, UTC).
    #[schema(format = DateTime)]
    pub created_at: String,
    /// When it is destroyed at the latest.
    #[schema(format = DateTime)]
    pub expires_at: String,
    /// What happens when it does nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle: Option<Idle>,
    /// What happened in its network so far, if its template gives it one: as its host last told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkSeen>,
    /// The caller's own names.
    pub labels: BTreeMap<String, String>,
}

/// What shall change. What is absent stays.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SandboxPatch {
    /// Seconds from now after which it is destroyed.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 604_800)]
    pub ttl_s: Option<u64>,
    /// What happens when it does nothing.
    #[serde(default)]
    pub idle: Option<Idle>,
    /// The caller's own names, all of them.
    #[serde(default)]
    pub labels: Option<BTreeMap<String, String>>,
}

/// Which sandboxes to list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct SandboxesQuery {
    /// Only those that have all of these labels: `name=value`, more of them after commas.
    #[serde(default)]
    pub labels: Option<String>,
    /// Those that are gone too.
    #[serde(default)]
    #[param(default = false)]
    pub gone: bool,
    /// Most entries.
    #[serde(default)]
    #[param(minimum = 1, maximum = 200, default = 50)]
    pub limit: Option<u32>,
    /// `next_cursor` of the page before; the first page has none.
    #[serde(default)]
    pub cursor: Option<String>,
}

/// How many forks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ForkRequest {
    /// How many.
    #[schema(minimum = 1, maximum = 100)]
    pub count: u32,
}

/// What became of the forks, in order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Forks {
    /// One for each.
    pub forks: Vec<Fork>,
}

/// What became of one fork.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Fork {
    /// The new sandbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<Sandbox>,
    /// Why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

/// The snapshot to go back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RollbackRequest {
    /// Its name; of this sandbox or of one that it comes from.
    #[schema(value_type = String)]
    pub snapshot: SnapshotId,
}

fn default_template() -> String {
    "default".into()
}

const fn default_ttl() -> u64 {
    DEFAULT_TTL_S
}
