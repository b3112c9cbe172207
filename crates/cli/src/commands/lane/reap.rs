//! `firelane reap`: gives back every lane whose time is over, wherever it was made.

use std::collections::BTreeMap;

use firelane_cloud::{Class, Provider, registry};
use firelane_lane::down::{Chosen, Down, down};
use firelane_lane::journal::{Yard, now};

use super::down::{given_back, remedy};
use super::place::{crew, provider, yard};
use super::stages::Stages;
use super::{FAILED, LEFT};
use crate::failure::Failure;
use crate::say::say;

/// What this machine has of a provider's.
#[derive(Clone, Copy, Debug, Default)]
struct Own {
    lanes: usize,
    overdue: usize,
}

pub(in crate::commands) async fn reap() -> Result<u8, Failure> {
    let yard = yard()?;
    let mut code = 0;
    let mut names: BTreeMap<String, Own> = registry::all()
        .map(|(name, _)| (name.to_owned(), Own::default()))
        .collect();
    for (label, lane) in yard.lanes()? {
        match lane {
            Ok(lane) => {
                let own = names.entry(lane.terms.provider.clone()).or_default();
                own.lanes += 1;
                own.overdue += usize::from(lane.is_expired(now()));
            }
            Err(error) => {
                let cause = firelane_cloud::causes(&error);
                eprintln!(
                    "firelane: whether the time of the lane {label} is over is not known: {cause}; remedy: firelane \
                     down --provider NAME --label {label} finds its machine by the marker"
                );
                code = FAILED;
            }
        }
    }
    for (name, own) in names {
        code = code.max(of_provider(&yard, &name, own).await?);
    }
    Ok(code)
}

/// Gives back what is overdue at one provider, and says what was looked at; gives the exit code.
async fn of_provider(yard: &Yard, name: &str, own: Own) -> Result<u8, Failure> {
    let provider = match provider(name) {
        Ok(provider) => provider,
        Err(failure) => {
            eprintln!("firelane: {name} cannot be looked at, {}", has(own));
            failure.report();
            return Ok(if own.overdue > 0 { LEFT } else { FAILED });
        }
    };
    let stages = Stages::new(false, None);
    let reaped = down(&crew(&provider, yard, &stages), &Chosen::Expired).await;
    let down = reaped.map_err(Failure::platform)?;
    given_back(&down)?;
    let code = told(name, provider.capabilities().lists, own, &down)?;
    Ok(if down.left.is_empty() { code } else { LEFT })
}

/// Says how far it could be looked; gives the exit code of that.
fn told(name: &str, lists: bool, own: Own, down: &Down) -> Result<u8, Failure> {
    let Some(error) = &down.unseen else {
        if down.is_nothing() {
            let where_to = if lists {
                "looked at"
            } else {
                "does not list its machines; the lanes of this machine were looked at"
            };
            say(format_args!("{name}: {where_to}, nothing is overdue"))?;
        }
        return Ok(0);
    };
    let why = format!("{}: {error}{}", has(own), remedy(error));
    // Whoever has no account there has no machine there.
    if error.class == Class::NoCredentials && own.lanes == 0 {
        say(format_args!("{name}: not looked at, {why}"))?;
        return Ok(0);
    }
    eprintln!("firelane: {name} cannot be looked at, {why}");
    Ok(FAILED)
}

fn has(own: Own) -> String {
    match own {
        Own { lanes: 0, .. } => "and no lane here is of it".to_owned(),
        Own { lanes, overdue } => format!("{lanes} of the lanes here are of it, {overdue} overdue"),
    }
}
