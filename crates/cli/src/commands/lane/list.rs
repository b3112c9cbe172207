//! `firelane list`.

use std::collections::BTreeSet;

use firelane_cloud::registry;
use firelane_lane::list::{Entry, Standing, list as entries};

use super::place::{provider, yard};
use super::stages::dollars;
use crate::args::ListArgs;
use crate::failure::Failure;
use crate::say::say;

pub(in crate::commands) async fn list(args: ListArgs) -> Result<u8, Failure> {
    let yard = yard()?;
    let mut names: BTreeSet<String> = BTreeSet::new();
    for (label, lane) in yard.lanes()? {
        match lane {
            Ok(lane) => {
                names.insert(lane.terms.provider);
            }
            Err(error) => {
                let cause = firelane_cloud::causes(&error);
                eprintln!("firelane: the lane {label} cannot be read: {cause}");
            }
        }
    }
    if args.all {
        names.extend(registry::all().map(|(name, _)| name.to_owned()));
    }
    let mut found = Vec::new();
    for name in names {
        match provider(&name) {
            Ok(provider) => found.extend(entries(&yard, &provider).await?),
            Err(failure) => {
                failure.report();
            }
        }
    }
    if args.json {
        say(serde_json::to_string(&found).map_err(Failure::platform)?)?;
        return Ok(0);
    }
    if found.is_empty() {
        say("no lanes")?;
    }
    for entry in &found {
        say(line(entry))?;
    }
    Ok(0)
}

fn line(entry: &Entry) -> String {
    let stage = entry
        .stage
        .map_or_else(|| "-".to_owned(), |stage| stage.to_string());
    let machine = entry
        .machine
        .map_or_else(|| "-".to_owned(), |state| state.to_string());
    let spent = entry.milli_usd.map_or_else(|| "?".to_owned(), dollars);
    let standing = match entry.standing {
        Standing::Agreed => "",
        Standing::Drift => "  DRIFT",
        Standing::Orphan => "  ORPHAN",
        Standing::Unknown => "  UNKNOWN",
    };
    let remark = entry
        .remark
        .as_ref()
        .map_or_else(String::new, |remark| format!(": {remark}"));
    format!(
        "{}  {} {} {}  {stage}  machine {machine}  {}  age {}  left {}  spent {spent}{standing}{remark}",
        entry.label,
        entry.provider,
        entry.region,
        entry.instance_type,
        entry.address.as_deref().unwrap_or("-"),
        time(entry.age_s),
        time(entry.left_s),
    )
}

/// Seconds, as people say them.
fn time(seconds: Option<u64>) -> String {
    match seconds {
        None => "?".into(),
        Some(seconds) if seconds < 120 => format!("{seconds}s"),
        Some(seconds) if seconds < 2 * 3600 => format!("{}m", seconds / 60),
        Some(seconds) => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
    }
}
