//! Templates: what microVMs are made from, and their builds. They are a host's, and every tenant's.

use std::collections::BTreeMap;

use firelane_model::id::BuildId;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::problem::{Code, Problem};

/// Longest name of a template, in bytes.
pub const MAX_NAME: usize = 64;
/// Longest definition, in bytes.
pub const MAX_DEFINITION: usize = 512 << 10;

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
pub struct NewBuild {
    /// Its name: 1 to 64 of a-z, 0-9, `-`, `_` and `.`, beginning with a letter or digit. Of a built-in one,
    /// unless there is a definition.
    #[schema(max_length = 64, pattern = "^[a-z0-9][-_.a-z0-9]*$")]
    pub name: String,
    /// A definition (TOML), as `firelane template build FILE` takes it, without wheels and without files of the
    /// host. At most 512 KiB.
    #[serde(default)]
    pub definition: Option<String>,
    /// Builds again with the newest packages.
    #[serde(default)]
    pub refresh: bool,
}

impl NewBuild {
    /// Whether it can be.
    ///
    /// # Errors
    /// [`Code::Invalid`], [`Code::TooLarge`].
    pub fn check(&self) -> Result<(), Problem> {
        check_name(&self.name)?;
        let length = self.definition.as_ref().map_or(0, String::len);
        if length > MAX_DEFINITION {
            let cause =
                format!("the definition has {length} bytes; at most {MAX_DEFINITION} are taken");
            return Err(Problem::new(Code::TooLarge, cause));
        }
        Ok(())
    }
}

/// Whether a template can have this name.
///
/// # Errors
/// [`Code::Invalid`].
pub fn check_name(name: &str) -> Result<(), Problem> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let first = name.bytes().next().is_some_and(plain);
    let rest = name
        .bytes()
        .all(|byte| plain(byte) || b"-_.".contains(&byte));
    if first && rest && name.len() <= MAX_NAME {
        return Ok(());
    }
    let cause = format!("'{}' is not a template's name", name.escape_debug());
    let problem = Problem::new(Code::Invalid, cause);
    Err(problem.with_remedy(
        "name it with 1 to 64 of a-z, 0-9, '-', '_' and '.', beginning with a letter or digit",
    ))
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
    #[schema(value_type = String, pattern = "^bld-[0-9a-f]{32}$")]
    pub id: BuildId,
    /// The template's.
    pub template: String,
    /// The host's.
    pub host: String,
    /// Where it is.
    pub state: BuildState,
    /// When it began (RFC 3339).
    #[schema(format = DateTime)]
    pub started_at: String,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

/// A line of a build's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildLine {
    /// Step of the build.
    pub step: String,
    /// What it says; empty where the step begins.
    pub message: String,
}

/// What a build's stream of events tells; each has one of these, a line has two.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BuildEvent {
    /// Of a line: the step of the build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// Of a line: what it says; empty where the step begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Of the end: the build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<Build>,
    /// Why the stream breaks off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

/// What follows a line of a build's log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BuildPage {
    /// The lines with their numbers, which rise from 1. Those that are missing in between are not kept any more.
    pub lines: Vec<(u64, BuildLine)>,
    /// The build; nothing follows these lines once it has ended.
    pub build: Build,
}

/// Which host is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct HostQuery {
    /// The host's name; without one, the first that takes work.
    #[serde(default)]
    pub host: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_files() {
        for good in ["a", "base", "py-3.11_x", &"x".repeat(MAX_NAME)] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "-a",
            "A",
            "a/b",
            "a\n",
            "\u{e4}",
            &"x".repeat(MAX_NAME + 1),
        ] {
            assert_eq!(check_name(bad).unwrap_err().code, Code::Invalid, "{bad}");
        }
    }

    #[test]
    fn a_definition_has_a_bound() {
        let build = |length| NewBuild {
            name: "mine".into(),
            definition: Some("x".repeat(length)),
            refresh: false,
        };
        assert!(build(MAX_DEFINITION).check().is_ok());
        let problem = build(MAX_DEFINITION + 1).check().unwrap_err();
        assert_eq!(problem.code, Code::TooLarge);
    }
}
