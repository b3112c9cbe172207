//! Execs: programs that run in a sandbox.

use std::collections::BTreeMap;

use firelane_guest_proto::Lang;
use firelane_model::id::ExecId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::content::Content;
use crate::problem::Problem;
use crate::run::{DEFAULT_OUTPUT_BYTES, Ending, Pty};

/// A program to be run in a sandbox: a command, or code of a language.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewExec {
    /// A command and its arguments.
    #[serde(default)]
    pub command: Vec<String>,
    /// Language of `code`, in place of a command.
    #[serde(default)]
    #[schema(schema_with = crate::run::lang_schema)]
    pub lang: Option<Lang>,
    /// Code, in place of a command.
    #[serde(default)]
    pub code: Content,
    /// Arguments of the code.
    #[serde(default)]
    pub args: Vec<String>,
    /// Its standard input; it ends after this unless `interactive`.
    #[serde(default)]
    pub stdin: Content,
    /// Leaves the standard input open for what is sent later.
    #[serde(default)]
    pub interactive: bool,
    /// Runs it on a terminal of this size.
    #[serde(default)]
    pub pty: Option<Pty>,
    /// Variables of its environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Working directory under `/work`, `/home/user` or `/tmp`.
    #[serde(default)]
    pub cwd: Option<String>,
    /// Time limit in milliseconds; none if absent.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 86_400_000)]
    pub timeout_ms: Option<u64>,
    /// Memory of the program in MiB; at most the sandbox's.
    #[serde(default)]
    #[schema(minimum = 16, maximum = 65_536)]
    pub memory_mib: Option<u32>,
    /// Bytes of stdout, and of stderr, that are passed on; what is over is dropped and told.
    #[serde(default = "default_output")]
    #[schema(minimum = 1, maximum = 16_777_216, default = 1_048_576)]
    pub output_bytes: u64,
}

const fn default_output() -> u64 {
    DEFAULT_OUTPUT_BYTES
}

/// An exec, as it is now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Exec {
    /// Its name.
    #[schema(value_type = String, example = "exe-0198c0de0000700080000000c0ffee00")]
    pub id: ExecId,
    /// Whether it runs.
    pub running: bool,
    /// When it was started (RFC 3339, UTC).
    #[schema(format = DateTime)]
    pub started_at: String,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ending: Option<Ending>,
    /// What it wrote, where that was waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Output>,
    /// Why Firelane could not run it, or not to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

/// What a program wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Output {
    /// Its stdout as text; bytes that are not UTF-8 are replaced.
    pub stdout: String,
    /// The same bytes as base64, if they are not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout_base64: Option<String>,
    /// Its stderr as text; bytes that are not UTF-8 are replaced.
    pub stderr: String,
    /// The same bytes as base64, if they are not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr_base64: Option<String>,
}

/// A signal to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SignalRequest {
    /// Its number: 9 goes to everything that the program started, others to its process group.
    #[schema(minimum = 1, maximum = 64)]
    pub signal: u8,
}

/// What is written to a program's standard input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StdinRequest {
    /// The bytes.
    #[serde(default)]
    pub content: Content,
    /// Nothing follows.
    #[serde(default)]
    pub end: bool,
}
