//! What was found out, as text and as JSON.

use std::fmt;

use serde::Serialize;

use crate::failure::Failure;
use crate::say::say;

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Grade {
    /// As it should be.
    Ok,
    /// Works, but weaker or slower than it could.
    Warning,
    /// Cannot be on this host.
    Impossible,
    /// Runs are not possible without it.
    Missing,
}

impl fmt::Display for Grade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Grade::Ok => "ok",
            Grade::Warning => "warning",
            Grade::Impossible => "impossible",
            Grade::Missing => "MISSING",
        })
    }
}

#[derive(Debug, Serialize)]
pub(super) struct Check {
    pub(super) name: String,
    pub(super) grade: Grade,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    /// The driver that runs would use, if any works.
    pub(super) driver: Option<String>,
    pub(super) checks: Vec<Check>,
    /// What was changed on the host, and what could not be.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) fixed: Vec<String>,
}

impl Report {
    pub(super) fn add(
        &mut self,
        name: &str,
        grade: Grade,
        detail: impl Into<String>,
        remedy: Option<&str>,
    ) {
        let check = Check {
            name: name.into(),
            grade,
            detail: detail.into().replace('\n', " | "),
            remedy: remedy.map(Into::into),
        };
        self.checks.push(check);
    }
}

pub(super) fn print(report: &Report) -> Result<(), Failure> {
    for fixed in &report.fixed {
        say(format_args!("{:<11} {fixed}", "fixed"))?;
    }
    for check in &report.checks {
        say(format_args!(
            "{:<11} {:<24} {}",
            check.grade, check.name, check.detail
        ))?;
        if let Some(remedy) = &check.remedy {
            say(format_args!("{:<36} remedy: {remedy}", ""))?;
        }
    }
    match &report.driver {
        Some(driver) => say(format_args!("runs use {driver}")),
        None => say(format_args!(
            "runs are not shown to work here yet: see above"
        )),
    }
}
