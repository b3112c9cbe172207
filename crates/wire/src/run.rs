//! Runs: one piece of code, executed once in a fresh sandbox.

use std::collections::BTreeMap;

use firelane_guest_proto::{Lang, message as guest};
use firelane_model::id::RunId;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::content::Content;
use crate::network::NetworkSeen;
use crate::problem::Problem;

/// Time limit of a run that names none, in milliseconds.
pub const DEFAULT_TIMEOUT_MS: u64 = 60_000;
/// Longest time limit, in milliseconds: one day.
pub const MAX_TIMEOUT_MS: u64 = 86_400_000;
/// Bytes of stdout, and of stderr, that are kept of a run that names no number.
pub const DEFAULT_OUTPUT_BYTES: u64 = 1 << 20;
/// Most that may be asked for.
pub const MAX_OUTPUT_BYTES: u64 = 16 << 20;
/// Most labels of a run or sandbox.
pub const MAX_LABELS: usize = 32;
/// Longest name or value of a label, in bytes.
pub const MAX_LABEL_BYTES: usize = 256;
/// Most files that a run brings, and that it gives back.
pub const MAX_FILES: usize = 64;
/// Most runs of one batch.
pub const MAX_BATCH: usize = 100;
/// Highest priority, and with a minus lowest.
pub const MAX_PRIORITY: i8 = 100;

/// What to run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RunRequest {
    /// Language of the code.
    #[schema(schema_with = lang_schema)]
    pub lang: Lang,
    /// The code.
    #[schema(example = "print(6*7)")]
    pub code: Content,
    /// Template of the microVM.
    #[serde(default = "default_template")]
    #[schema(default = "default")]
    pub template: String,
    /// Arguments of the program.
    #[serde(default)]
    pub args: Vec<String>,
    /// Its standard input.
    #[serde(default)]
    pub stdin: Content,
    /// Leaves the standard input open for what is sent while it runs.
    #[serde(default)]
    pub interactive: bool,
    /// Runs it on a terminal of this size.
    #[serde(default)]
    pub pty: Option<Pty>,
    /// Variables of its environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Files that are there when it starts.
    #[serde(default)]
    #[schema(max_items = 64)]
    pub files: Vec<FileIn>,
    /// Paths of files that are given back afterwards.
    #[serde(default)]
    #[schema(max_items = 64)]
    pub fetch: Vec<String>,
    /// Time limit in milliseconds.
    #[serde(default = "default_timeout")]
    #[schema(minimum = 1, maximum = 86_400_000, default = 60_000)]
    pub timeout_ms: u64,
    /// Memory of the program in MiB; at most the template's.
    #[serde(default)]
    #[schema(minimum = 128, maximum = 65_536)]
    pub memory_mib: Option<u32>,
    /// Bytes of stdout, and of stderr, that are kept; what is over is dropped and told.
    #[serde(default = "default_output")]
    #[schema(minimum = 1, maximum = 16_777_216, default = 1_048_576)]
    pub output_bytes: u64,
    /// Served before those of the same tenant with a lower number.
    #[serde(default)]
    #[schema(minimum = -100, maximum = 100)]
    pub priority: i8,
    /// Milliseconds within which it must have been started; else it expires.
    #[serde(default)]
    #[schema(minimum = 1)]
    pub deadline_ms: Option<u64>,
    /// Names for the caller's own use.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// Runs that are asked for together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BatchRequest {
    /// The runs. Each may be on another host and end at another time.
    #[schema(min_items = 1, max_items = 100)]
    pub runs: Vec<RunRequest>,
}

/// What became of a batch: one entry for each run, in the order in which they were asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Batch {
    /// The entries.
    pub runs: Vec<BatchItem>,
}

/// What became of one run of a batch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BatchItem {
    /// The run, if it was taken; one that failed tells why by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<Run>,
    /// Why it was not taken, or why its outcome is not here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

/// Size of a terminal in character cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Pty {
    /// Lines.
    #[schema(minimum = 1)]
    pub rows: u16,
    /// Columns.
    #[schema(minimum = 1)]
    pub cols: u16,
}

/// A file that a run brings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FileIn {
    /// Where to, relative to the working directory or under `/work`, `/home/user` or `/tmp`.
    #[schema(example = "data.csv")]
    pub path: String,
    /// Its content.
    pub content: Content,
    /// Permission bits.
    #[serde(default = "default_mode")]
    #[schema(default = 0o644, maximum = 0o777)]
    pub mode: u32,
}

/// Where a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// It waits for its turn.
    Queued,
    /// A microVM has it.
    Running,
    /// It ended by itself or by its limits: `outcome` tells how.
    Done,
    /// Firelane could not run it: `problem` tells why.
    Failed,
    /// Its owner ended it.
    Cancelled,
    /// It was not started before its deadline.
    Expired,
}

impl RunState {
    /// Whether nothing more will happen to it.
    #[must_use]
    pub const fn is_final(self) -> bool {
        !matches!(self, RunState::Queued | RunState::Running)
    }

    /// The name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            RunState::Queued => "queued",
            RunState::Running => "running",
            RunState::Done => "done",
            RunState::Failed => "failed",
            RunState::Cancelled => "cancelled",
            RunState::Expired => "expired",
        }
    }
}

/// A run, as it is now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Run {
    /// Its name.
    #[schema(value_type = String, example = "run-0198c0de0000700080000000c0ffee00")]
    pub id: RunId,
    /// Where it is.
    pub state: RunState,
    /// Language of the code.
    #[schema(schema_with = lang_schema)]
    pub lang: Lang,
    /// Template of the microVM.
    pub template: String,
    /// When it was asked for (RFC 3339, UTC).
    #[schema(format = DateTime)]
    pub created_at: String,
    /// When a microVM got it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub started_at: Option<String>,
    /// When it was over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub finished_at: Option<String>,
    /// Where it stands in the queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Why Firelane could not run it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
    /// The caller's own names.
    pub labels: BTreeMap<String, String>,
    /// Its trace, as 32 characters of lower-case hex: that of the caller's `traceparent`, else its
    /// own, which is its id without `run-`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "0198c0de0000700080000000c0ffee00")]
    pub trace_id: Option<String>,
}

/// Which runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RunsQuery {
    /// Only those that are there.
    #[serde(default)]
    pub state: Option<RunState>,
    /// Most entries.
    #[serde(default)]
    #[param(minimum = 1, maximum = 200, default = 50)]
    pub limit: Option<u32>,
    /// `next_cursor` of the page before; the first page has none.
    #[serde(default)]
    pub cursor: Option<String>,
}

/// A place in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Place {
    /// Runs that are served before it, if none is added.
    pub position: u64,
    /// Milliseconds until it starts, as an estimate.
    pub eta_ms: u64,
}

/// How a program ended, without what it wrote.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Ending {
    /// As a shell shows it: the program's own; 124 time limit; 127 no interpreter; 128 + n for
    /// signal n, 137 also for the memory limit.
    pub exit_code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// The time limit ended it.
    pub timed_out: bool,
    /// The memory limit ended a process of it.
    pub out_of_memory: bool,
    /// Bytes of stdout were dropped.
    pub stdout_truncated: bool,
    /// Bytes of stderr were dropped.
    pub stderr_truncated: bool,
    /// What ran it.
    pub interpreter: String,
    /// What it took.
    pub usage: Resources,
}

impl From<&guest::Outcome> for Ending {
    fn from(outcome: &guest::Outcome) -> Ending {
        let ms = |us: u64| us as f64 / 1e3;
        Ending {
            exit_code: outcome.exit_code(),
            signal: outcome.signal(),
            timed_out: outcome.timed_out,
            out_of_memory: outcome.out_of_memory,
            stdout_truncated: outcome.stdout_truncated,
            stderr_truncated: outcome.stderr_truncated,
            interpreter: outcome.interpreter.clone(),
            usage: Resources {
                wall_ms: ms(outcome.wall_us),
                cpu_ms: ms(outcome.cpu_us),
                peak_memory_bytes: outcome.peak_memory_bytes,
            },
        }
    }
}

/// What a program took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Resources {
    /// Milliseconds from its start to its end.
    pub wall_ms: f64,
    /// Milliseconds of processor time.
    pub cpu_ms: f64,
    /// Most memory at one time, in bytes.
    pub peak_memory_bytes: u64,
}

/// How a run ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Outcome {
    /// How the program ended.
    #[serde(flatten)]
    pub ending: Ending,
    /// What it wrote to stdout; bytes that are not UTF-8 are replaced.
    pub stdout: String,
    /// The exact bytes, where some were replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout_base64: Option<String>,
    /// What it wrote to stderr.
    pub stderr: String,
    /// The exact bytes, where some were replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr_base64: Option<String>,
    /// The files that were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileOut>,
    /// Where it ran, and how.
    pub ran: Ran,
}

/// A file that a run gives back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FileOut {
    /// The path that was asked for.
    pub path: String,
    /// Its content as base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base64: Option<String>,
    /// Why it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
}

/// Where a program ran, and how long each step took.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Ran {
    /// The host.
    pub host: String,
    /// Kind of VMM.
    pub driver: String,
    /// What executed the guest's instructions: `kvm`, or `tcg` for emulation, which is a weaker
    /// boundary.
    pub acceleration: String,
    /// Where the microVM came from.
    pub origin: Origin,
    /// Milliseconds from the moment a host had it to each phase.
    pub phases_ms: BTreeMap<String, f64>,
    /// What happened in its network, if its template gives it one. A program in a sandbox has none of its own:
    /// see there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkSeen>,
}

/// Where a microVM came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The warm pool.
    Pool,
    /// A snapshot, restored for it.
    #[default]
    Snapshot,
    /// A boot.
    Boot,
}

impl Origin {
    /// The name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Origin::Pool => "pool",
            Origin::Snapshot => "snapshot",
            Origin::Boot => "boot",
        }
    }
}

fn default_template() -> String {
    "default".into()
}

const fn default_timeout() -> u64 {
    DEFAULT_TIMEOUT_MS
}

const fn default_output() -> u64 {
    DEFAULT_OUTPUT_BYTES
}

const fn default_mode() -> u32 {
    0o644
}

/// The languages, for the API's description.
#[must_use]
pub fn lang_schema() -> utoipa::openapi::schema::Object {
    utoipa::openapi::ObjectBuilder::new()
        .schema_type(utoipa::openapi::schema::Type::String)
        .enum_values(Some(Lang::ALL.map(Lang::name)))
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_needs_a_language_and_code_and_nothing_else() {
        let request: RunRequest =
            serde_json::from_str(r#"{"lang":"python","code":"print(1)"}"#).expect("it is a run");
        assert_eq!(request.template, "default");
        assert_eq!(request.timeout_ms, DEFAULT_TIMEOUT_MS);
        assert_eq!(request.stdin, Content::Nothing);
    }

    #[test]
    fn a_misspelt_limit_is_refused() {
        let json = r#"{"lang":"python","code":"1","timeout":5}"#;
        let error = serde_json::from_str::<RunRequest>(json).expect_err("timeout is timeout_ms");
        assert!(error.to_string().contains("unknown field `timeout`"));
    }
}
