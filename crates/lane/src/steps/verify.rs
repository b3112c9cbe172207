//! Shows that the services work, on the machine itself.

use std::time::Duration;

use firelane_model::lane::{Lane, Step};
use serde::Serialize;

use super::create::tail;
use super::prepare::prepared;
use super::reach::log_in;
use crate::access::{Command, Host};
use crate::crew::{Crew, StepError};
use crate::install::{DEPLOY_STATUS, UNITS};

/// One row of a verification.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// What was looked at.
    pub check: &'static str,
    /// What was found.
    pub verdict: Verdict,
    /// In a few words.
    pub message: String,
}

/// What a check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verdict {
    /// It works.
    Pass,
    /// It does not.
    Fail,
    /// It could not be looked at on this machine, or an earlier check had failed.
    Skip,
}

/// A check: a script that is run as root on the machine.
struct Check {
    name: &'static str,
    script: &'static str,
}

/// In this order. Each script ends with 0 if it passes, and with 10 if this machine cannot show it;
/// the last line that it writes says what was found.
const CHECKS: &[Check] = &[
    Check {
        name: "deploy status",
        script: include_str!("../checks/status.sh"),
    },
    Check {
        name: "units",
        script: include_str!("../checks/units.sh"),
    },
    Check {
        name: "seccomp",
        script: include_str!("../checks/seccomp.sh"),
    },
    Check {
        name: "microVM",
        script: include_str!("../checks/microvm.sh"),
    },
    Check {
        name: "API",
        script: include_str!("../checks/api.sh"),
    },
    Check {
        name: "a minute",
        script: include_str!("../checks/minute.sh"),
    },
    Check {
        name: "restart",
        script: include_str!("../checks/restart.sh"),
    },
    Check {
        name: SOURCES,
        script: include_str!("../checks/sources.sh"),
    },
];
/// The check that takes longer than the others.
const SOURCES: &str = "sources";
/// Exit code of a check that this machine cannot show.
const CANNOT: i32 = 10;

/// Runs every check; after one that failed the rest only if `go_on`.
pub async fn verify(crew: &Crew<'_>, lane: &Lane, go_on: bool) -> Result<Vec<Row>, StepError> {
    let host = log_in(crew, lane, Step::Verify).await?;
    let mut rows = vec![kvm(&*host, lane.terms.kvm).await?];
    for check in CHECKS {
        let failed = rows.iter().any(|row| row.verdict == Verdict::Fail);
        let row = if failed && !go_on {
            Row {
                check: check.name,
                verdict: Verdict::Skip,
                message: "an earlier check failed".into(),
            }
        } else {
            let deadline = match check.name {
                SOURCES => crew.timing.sources,
                _ => crew.timing.check,
            };
            run(&*host, lane, check, deadline).await?
        };
        rows.push(row);
    }
    Ok(rows)
}

/// What the preparation found of KVM.
async fn kvm(host: &dyn Host, wanted: bool) -> Result<Row, StepError> {
    let found = prepared(host).await?.map(|prepared| prepared.kvm);
    let (verdict, message) = match found.as_deref() {
        Some("usable") => (
            Verdict::Pass,
            "KVM makes machines and processors".to_owned(),
        ),
        Some("absent") if !wanted => (Verdict::Skip, "no /dev/kvm".to_owned()),
        Some(found) if !wanted => (Verdict::Skip, format!("not wanted; it is {found}")),
        Some(found) => (Verdict::Fail, format!("it is {found}")),
        // The status is on a file system that a reboot empties.
        None if wanted => (Verdict::Fail, "the machine was not prepared".to_owned()),
        None => (Verdict::Skip, "not wanted".to_owned()),
    };
    Ok(Row {
        check: "KVM",
        verdict,
        message,
    })
}

async fn run(
    host: &dyn Host,
    lane: &Lane,
    check: &Check,
    deadline: Duration,
) -> Result<Row, StepError> {
    let units: Vec<_> = UNITS.iter().map(|unit| unit.name).collect();
    let input = format!(
        "UNITS='{}' STATUS={DEPLOY_STATUS} WANT_KVM={}\n{}",
        units.join(" "),
        u8::from(lane.terms.kvm),
        check.script
    );
    let command = Command::new(["sh", "-s"])
        .as_root()
        .reading(input)
        .within(deadline);
    let output = host.run(&command).await?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    let verdict = match output.code {
        0 => Verdict::Pass,
        CANNOT => Verdict::Skip,
        _ => Verdict::Fail,
    };
    let said = tail(&said);
    let message = match verdict {
        Verdict::Fail => said,
        _ => said.lines().last().unwrap_or_default().to_owned(),
    };
    Ok(Row {
        check: check.name,
        verdict,
        message,
    })
}
