//! Snapshots of sandboxes.

use firelane_model::id::{SandboxId, SnapshotId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A snapshot of a sandbox: its memory and its disk at one instant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Snapshot {
    /// Its name.
    #[schema(value_type = String, example = "snp-0198c0de0000700080000000c0ffee00")]
    pub id: SnapshotId,
    /// The sandbox that it was taken of.
    #[schema(value_type = String)]
    pub sandbox: SandboxId,
    /// The snapshot that the sandbox began from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub parent: Option<SnapshotId>,
    /// Template of the sandbox.
    pub template: String,
    /// When it was taken (RFC 3339, UTC).
    #[schema(format = DateTime)]
    pub created_at: String,
    /// Bytes on the host's disk.
    pub size_bytes: u64,
}
