//! What was used.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Which days.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct UsageQuery {
    /// First day (UTC) [default: today].
    #[serde(default)]
    #[param(format = Date, example = "2026-11-01")]
    pub from: Option<String>,
    /// Last day (UTC) [default: today].
    #[serde(default)]
    #[param(format = Date, example = "2026-11-30")]
    pub to: Option<String>,
}

/// What the caller's tenant used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Usage {
    /// By day and API key.
    pub days: Vec<UsageDay>,
}

/// What one API key used on one day.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct UsageDay {
    /// The day (UTC).
    #[schema(format = Date)]
    pub day: String,
    /// The API key.
    pub key: String,
    /// Runs that ended.
    pub runs: u64,
    /// Seconds of processor time in guests.
    pub cpu_seconds: f64,
    /// Seconds that programs took.
    pub wall_seconds: f64,
    /// Bytes that programs wrote.
    pub output_bytes: u64,
}
