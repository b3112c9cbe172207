//! The queue of runs.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The queue, as the caller may see it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Queue {
    /// Runs that wait, of all tenants.
    pub queued: u64,
    /// Most that may wait.
    pub capacity: u64,
    /// Runs of the caller's tenant that wait.
    pub yours: u64,
    /// Most of one tenant that may wait.
    pub capacity_per_tenant: u64,
    /// Runs that microVMs have now, of all tenants.
    pub running: u64,
    /// Runs that can run at once, of all hosts.
    pub slots: u64,
    /// Milliseconds that a run added now would wait, as an estimate.
    pub eta_ms: u64,
}
