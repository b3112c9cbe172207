//! Hosts: the machines that run microVMs.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A host, as it last told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Host {
    /// Its name.
    pub id: String,
    /// Kind of VMM.
    pub driver: String,
    /// What executes the guests' instructions: `kvm`, or `tcg` for emulation.
    pub acceleration: String,
    /// Runs that it takes at once.
    pub slots: u32,
    /// Runs that it has.
    pub running: u32,
    /// Sandboxes that it has.
    pub sandboxes: u32,
    /// Its warm pools.
    pub pools: Vec<Pool>,
    /// VMMs that wait for the next restores.
    pub standing: Standing,
    /// Version of the agent.
    pub version: String,
}

/// A warm pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Pool {
    /// Template of its microVMs.
    pub template: String,
    /// Language that they are warm for.
    pub lang: String,
    /// MicroVMs that wait.
    pub ready: u32,
    /// MicroVMs that are being prepared.
    pub preparing: u32,
    /// Least that shall wait.
    pub min: u32,
    /// Most that may be there.
    pub max: u32,
    /// Claims that were served.
    pub hits: u64,
    /// Claims that found it empty.
    pub misses: u64,
}

/// VMMs that were started ahead of need: a restore that finds one does not wait for its process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Standing {
    /// Those that wait.
    pub waiting: u32,
    /// Restores that found one.
    pub hits: u64,
    /// Restores that found none.
    pub misses: u64,
}
