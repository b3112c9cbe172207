//! API keys: who may do what, and how much of it.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use firelane_model::id::KeyId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a key allows.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Runs.
    Run,
    /// Sandboxes, their execs, files, snapshots and forks.
    Sandbox,
    /// Building and removing templates.
    Template,
    /// Keys, audit, and everything of every tenant.
    Admin,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Scope; 4] = [Scope::Run, Scope::Sandbox, Scope::Template, Scope::Admin];

    /// The name on the wire and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Scope::Run => "run",
            Scope::Sandbox => "sandbox",
            Scope::Template => "template",
            Scope::Admin => "admin",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A scope that does not exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no scope '{0}'; there are run, sandbox, template and admin")]
pub struct UnknownScope(String);

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Scope, UnknownScope> {
        let named = Scope::ALL.into_iter().find(|scope| scope.name() == text);
        named.ok_or_else(|| UnknownScope(text.into()))
    }
}

/// How much a key allows. What is absent is not limited.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyLimits {
    /// How often it may ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// Requests that may be made at once after a pause [default: the rate's number].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
    /// Runs and sandboxes at the same time, those that wait included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// Seconds of processor time in guests on one day (UTC).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_seconds_per_day: Option<u64>,
}

/// So many requests in so much time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// How many.
    #[schema(value_type = u32, minimum = 1)]
    pub requests: std::num::NonZeroU32,
    /// In how many seconds.
    #[schema(value_type = u32, minimum = 1)]
    pub per_seconds: std::num::NonZeroU32,
}

/// A key to be made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewKey {
    /// For people.
    #[schema(
        min_length = 1,
        max_length = 100,
        pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]+$"
    )]
    pub name: String,
    /// Keys of one tenant see each other's runs and sandboxes [default: the name].
    #[serde(default)]
    #[schema(
        min_length = 1,
        max_length = 100,
        pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]+$"
    )]
    pub tenant: Option<String>,
    /// What it allows.
    #[schema(min_items = 1)]
    pub scopes: BTreeSet<Scope>,
    /// Its share of the hosts, against other tenants [default: 1].
    #[serde(default)]
    #[schema(minimum = 1, maximum = 1000)]
    pub weight: Option<u32>,
    /// How much it allows.
    #[serde(default)]
    pub limits: KeyLimits,
}

/// A key, without its secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Key {
    /// Its name in lists and logs.
    #[schema(value_type = String, example = "key-0198c0de0000700080000000c0ffee00")]
    pub id: KeyId,
    /// For people.
    pub name: String,
    /// Its tenant.
    pub tenant: String,
    /// What it allows.
    pub scopes: BTreeSet<Scope>,
    /// Its share of the hosts.
    pub weight: u32,
    /// How much it allows.
    pub limits: KeyLimits,
    /// When it was made (RFC 3339, UTC).
    #[schema(format = DateTime)]
    pub created_at: String,
    /// When it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub revoked_at: Option<String>,
}

/// A key just made, with its secret: this is the only time that it is shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct KeyMade {
    /// The key.
    #[serde(flatten)]
    pub key: Key,
    /// What goes into `Authorization: Bearer`.
    pub token: String,
}
