//! Templates: what microVMs are made from.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A template that is built on a host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Template {
    /// Its name.
    pub name: String,
    /// One line for people.
    pub description: String,
    /// Hash of all that decides how a guest behaves.
    pub id: String,
    /// When it was built (RFC 3339).
    #[schema(format = DateTime)]
    pub created_at: String,
    /// Guest memory in MiB.
    pub memory_mib: u32,
    /// Bytes of its root file system.
    pub rootfs_bytes: u64,
    /// Release of its kernel.
    pub kernel: String,
    /// Its packages, with their versions.
    pub packages: BTreeMap<String, String>,
}

/// A template to be built.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BuildRequest {
    /// A built-in template.
    #[serde(default)]
    pub name: Option<String>,
    /// A definition (TOML), as `firelane template build FILE` takes it; in place of `name`.
    #[serde(default)]
    pub definition: Option<String>,
    /// Builds again with the newest packages.
    #[serde(default)]
    pub refresh: bool,
}

/// Where a build is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BuildState {
    /// It runs.
    Running,
    /// The template and its snapshot are there.
    Done,
    /// It failed: `problem` tells why.
    Failed,
}

/// A build of a template.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Build {
    /// Its name.
    pub id: String,
    /// The template's.
    pub template: String,
    /// Where it is.
    pub state: BuildState,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<crate::problem::Problem>,
}

/// A line of a build's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BuildLine {
    /// Step of the build.
    pub step: String,
    /// What it says.
    pub message: String,
}
