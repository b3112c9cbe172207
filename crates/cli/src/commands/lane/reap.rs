//! `firelane reap`: gives back every lane whose time is over, wherever it was made.

use std::collections::BTreeSet;

use firelane_cloud::registry;
use firelane_lane::down::{Chosen, down};

use super::place::{crew, provider, yard};
use super::stages::Stages;
use super::{LEFT, down::told};
use crate::failure::Failure;

pub(in crate::commands) async fn reap() -> Result<u8, Failure> {
    let yard = yard()?;
    // Those that this machine has lanes at have to answer; of the others those that can.
    let lanes = yard.lanes()?;
    let of_lanes = lanes
        .into_iter()
        .filter_map(|(_, lane)| Some(lane.ok()?.terms.provider));
    let own: BTreeSet<String> = of_lanes.collect();
    let others = registry::all().map(|(name, _)| name.to_owned());
    let names: BTreeSet<String> = own.iter().cloned().chain(others).collect();
    let stages = Stages::new(false, None);
    let mut code = 0;
    for name in names {
        let reaped = match provider(&name) {
            Ok(provider) => {
                let crew = crew(&provider, &yard, &stages);
                down(&crew, &Chosen::Expired)
                    .await
                    .map_err(Failure::platform)
            }
            Err(failure) => Err(failure),
        };
        match reaped {
            Ok(down) => code = code.max(told(&down)?),
            Err(failure) if own.contains(&name) => {
                failure.report();
                code = LEFT;
            }
            Err(_) => eprintln!("firelane: {name} cannot be asked, and no lane here is of it"),
        }
    }
    Ok(code)
}
