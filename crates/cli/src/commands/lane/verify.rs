//! `firelane verify LABEL`: shows that the services of a lane work, on its machine.

use firelane_lane::steps::verify::{Row, Verdict, verify as check};
use firelane_model::lane::Label;

use super::FAILED;
use super::place::{crew, known, provider, yard};
use super::stages::Stages;
use crate::failure::Failure;
use crate::say::say;

pub(in crate::commands) async fn verify(
    label: &Label,
    go_on: bool,
    json: bool,
) -> Result<u8, Failure> {
    let yard = yard()?;
    let lane = known(&yard, label)?;
    let provider = provider(&lane.terms.provider)?;
    let stages = Stages::new(false, None);
    let crew = crew(&provider, &yard, &stages);
    let rows = check(&crew, &lane, go_on)
        .await
        .map_err(Failure::platform)?;
    if json {
        say(serde_json::to_string(&rows).map_err(Failure::platform)?)?;
    } else {
        table(&rows)?;
    }
    let failed = rows.iter().any(|row| row.verdict == Verdict::Fail);
    Ok(if failed { FAILED } else { 0 })
}

/// One line for each check.
pub(super) fn table(rows: &[Row]) -> Result<(), Failure> {
    for row in rows {
        let verdict = match row.verdict {
            Verdict::Pass => "PASS",
            Verdict::Fail => "FAIL",
            Verdict::Skip => "SKIP",
        };
        let message = row.message.replace('\n', "\n                      | ");
        say(format_args!("{verdict}  {:<14}  {message}", row.check))?;
    }
    Ok(())
}
