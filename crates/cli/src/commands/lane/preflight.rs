//! `firelane preflight`: what a create needs, looked at for nothing.

use firelane_cloud::Spec;
use firelane_cloud::provider::{Check, Verdict};
use firelane_cloud::{Provider, registry};
use firelane_lane::journal::now;
use firelane_model::lane::LaneId;
use serde::Serialize;

use super::FAILED;
use super::place::provider;
use super::up::extras;
use crate::args::{PreflightArgs, WishArgs};
use crate::failure::Failure;
use crate::say::say;

/// What was found of one provider.
#[derive(Serialize)]
struct Report {
    provider: String,
    checks: Vec<Check>,
}

pub(in crate::commands) async fn preflight(args: PreflightArgs) -> Result<u8, Failure> {
    let names = match &args.provider {
        Some(name) => vec![name.clone()],
        None => registry::all().map(|(name, _)| name.to_owned()).collect(),
    };
    let mut reports = Vec::new();
    for name in names {
        let checks = match looked_at(&name, &args.wish).await {
            Ok(checks) => checks,
            // One that is asked for by its name has to exist.
            Err(failure) if args.provider.is_some() => return Err(failure),
            Err(failure) => vec![Check::new("settings", Verdict::Failed, failure.message())],
        };
        reports.push(Report {
            provider: name,
            checks,
        });
    }
    if args.json {
        say(serde_json::to_string(&reports).map_err(Failure::platform)?)?;
    } else {
        for report in &reports {
            say(&report.provider)?;
            table(&report.checks)?;
        }
    }
    let failed = |report: &Report| {
        report
            .checks
            .iter()
            .any(|check| check.verdict == Verdict::Failed)
    };
    // Of all providers one is enough.
    let could = reports.iter().any(|report| !failed(report));
    Ok(if could { 0 } else { FAILED })
}

async fn looked_at(name: &str, wish: &WishArgs) -> Result<Vec<Check>, Failure> {
    let provider = provider(name)?;
    let region = match &wish.region {
        Some(region) => region.clone(),
        None => provider.default_region().await?,
    };
    let instance_type = match &wish.instance_type {
        Some(instance_type) => instance_type.clone(),
        None => provider.default_instance_type().await?,
    };
    let spec = Spec {
        label: "preflight".parse().expect("it is a label"),
        lane: LaneId::from_bits(0),
        owner: String::new(),
        region,
        instance_type,
        disk_gib: wish.disk_gib,
        kvm: !wish.no_kvm,
        user_data: String::new(),
        ssh_key: String::new(),
        ssh_from: wish.ssh_from.clone(),
        created: now(),
        expires: now(),
        extras: extras(wish),
    };
    Ok(provider.preflight(&spec).await?)
}

/// One line for each check.
fn table(checks: &[Check]) -> Result<(), Failure> {
    for check in checks {
        let verdict = match check.verdict {
            Verdict::Ok => "ok",
            Verdict::Warning => "warning",
            Verdict::Failed => "FAILED",
        };
        let remedy = check
            .remedy
            .as_ref()
            .map_or_else(String::new, |remedy| format!("; remedy: {remedy}"));
        say(format_args!(
            "  {verdict:<7}  {:<14}  {}{remedy}",
            check.name, check.message
        ))?;
    }
    Ok(())
}
