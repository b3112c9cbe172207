//! `firelane list`.

use std::collections::BTreeSet;

use firelane_cloud::{Class, registry};
use firelane_lane::list::{Entry, Standing, list as entries};

use super::FAILED;
use super::place::{provider, yard};
use super::stages::dollars;
use crate::args::ListArgs;
use crate::failure::Failure;
use crate::say::say;

pub(in crate::commands) async fn list(args: ListArgs) -> Result<u8, Failure> {
    let yard = yard()?;
    // Those that are built in are always asked: a machine whose journal is lost is paid for too.
    let mut names: BTreeSet<String> = registry::all().map(|(name, _)| name.to_owned()).collect();
    let mut own = BTreeSet::new();
    let mut code = 0;
    for (label, lane) in yard.lanes()? {
        match lane {
            Ok(lane) => {
                own.insert(lane.terms.provider);
            }
            Err(error) => {
                let cause = firelane_cloud::causes(&error);
                eprintln!("firelane: the lane {label} cannot be read: {cause}");
                code = FAILED;
            }
        }
    }
    names.extend(own.iter().cloned());
    let mut found = Vec::new();
    for name in names {
        match provider(&name) {
            Ok(provider) => {
                let (of_it, error) = entries(&yard, &provider).await?;
                found.extend(of_it);
                match error {
                    // Whoever has no account there has no machine there.
                    Some(error) if error.class == Class::NoCredentials && !own.contains(&name) => {
                        eprintln!("firelane: {name} is not asked: {error}");
                    }
                    Some(error) => {
                        eprintln!("firelane: {error}");
                        code = FAILED;
                    }
                    None => {}
                }
            }
            Err(failure) => {
                failure.report();
                code = FAILED;
            }
        }
    }
    let over = if args.all {
        yard.retired()?
    } else {
        Vec::new()
    };
    if args.json {
        say(serde_json::to_string(&found).map_err(Failure::platform)?)?;
        return Ok(code);
    }
    if found.is_empty() && over.is_empty() {
        say("no lanes")?;
    }
    for entry in &found {
        say(line(entry))?;
    }
    for lane in &over {
        let spent = lane
            .milli_usd(lane.since)
            .map_or_else(|| "?".to_owned(), dollars);
        let (label, terms) = (&lane.label, &lane.terms);
        let (provider, region, kind) = (&terms.provider, &terms.region, &terms.instance_type);
        let lived = time(Some(lane.since.since(lane.created).as_secs()));
        say(format_args!(
            "{label}  {provider} {region} {kind}  {}  lived {lived}  spent {spent}",
            lane.stage
        ))?;
    }
    Ok(code)
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
        entry.label.as_ref().map_or("-", |label| label.as_str()),
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
