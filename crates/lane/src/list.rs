//! Which lanes there are: what journals say and what providers say, side by side.

use std::collections::BTreeMap;

use firelane_cloud::marker::Which;
use firelane_cloud::{CloudError, Machine, MachineState, Provider};
use firelane_model::lane::{Label, Lane, Stage};
use firelane_model::time::Moment;
use serde::Serialize;

use crate::journal::{JournalError, Yard, now};

/// One lane, or one machine that none of the journals here knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Its name. None: a machine with the marker that lost its label.
    pub label: Option<Label>,
    /// Name of the provider.
    pub provider: String,
    /// Region, in the provider's words.
    pub region: String,
    /// Type, in the provider's words.
    pub instance_type: String,
    /// Name or address.
    pub address: Option<String>,
    /// How far it is. None: no journal here knows it.
    pub stage: Option<Stage>,
    /// What its provider says of it. None: it knows of none, or cannot be asked.
    pub machine: Option<MachineState>,
    /// Age in seconds.
    pub age_s: Option<u64>,
    /// Seconds until anybody may remove it; nothing if its time is over.
    pub left_s: Option<u64>,
    /// What it has cost so far, in thousandths of a US dollar.
    pub milli_usd: Option<u64>,
    /// Whether journal and provider agree.
    pub standing: Standing,
    /// In what they do not.
    pub remark: Option<String>,
}

/// Whether journal and provider agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// They do.
    Agreed,
    /// The journal says something else than the provider.
    Drift,
    /// The provider has a machine with our marker, and no journal here knows it.
    Orphan,
    /// The provider could not be asked, or does not tell.
    Unknown,
}

/// All lanes of one provider. `asked` is what the provider said of its machines.
pub fn entries(
    yard: &Yard,
    provider: &str,
    asked: Result<&[Machine], &CloudError>,
    lists: bool,
) -> Result<Vec<Entry>, JournalError> {
    let now = now();
    let mut machines: BTreeMap<_, _> = asked
        .unwrap_or_default()
        .iter()
        .map(|machine| (&machine.handle, machine))
        .collect();
    let mut entries = Vec::new();
    for (label, lane) in yard.lanes()? {
        let lane = match lane {
            Ok(lane) if lane.terms.provider == provider => lane,
            Ok(_) => continue,
            Err(error) => {
                let error = firelane_cloud::causes(&error);
                tracing::warn!(%label, %error, "a journal cannot be read");
                continue;
            }
        };
        let of_lane = |machine: &Machine| {
            let marked = machine.mark.as_ref().and_then(|mark| mark.lane);
            lane.handle.as_ref() == Some(&machine.handle) || marked == Some(lane.lane)
        };
        let machine = machines.values().copied().find(|machine| of_lane(machine));
        if let Some(machine) = machine {
            machines.remove(&machine.handle);
        }
        let (standing, remark) = match asked {
            Err(error) => (Standing::Unknown, Some(error.to_string())),
            Ok(_) if !lists => (Standing::Unknown, None),
            Ok(_) => compare(&lane, machine),
        };
        entries.push(of_journal(&lane, machine, standing, remark, now));
    }
    entries.extend(machines.values().map(|machine| orphan(machine, now)));
    entries.sort_by(|one, other| (&one.label, one.age_s).cmp(&(&other.label, other.age_s)));
    Ok(entries)
}

/// The same, with the provider asked; and why it could not be asked, if it could not.
pub async fn list(
    yard: &Yard,
    provider: &dyn Provider,
) -> Result<(Vec<Entry>, Option<CloudError>), JournalError> {
    let lists = provider.capabilities().lists;
    let asked = if lists {
        provider.list(&Which::All).await
    } else {
        Ok(Vec::new())
    };
    let name = provider.name();
    Ok(match asked {
        Ok(machines) => (entries(yard, name, Ok(&machines), lists)?, None),
        Err(error) => (entries(yard, name, Err(&error), lists)?, Some(error)),
    })
}

fn compare(lane: &Lane, machine: Option<&Machine>) -> (Standing, Option<String>) {
    let drift = |remark: String| (Standing::Drift, Some(remark));
    match machine {
        None if lane.handle.is_some() && lane.stage != Stage::Expiring => {
            drift("its machine is gone; remedy: firelane down".into())
        }
        None => (Standing::Agreed, None),
        Some(machine) if machine.state != MachineState::Running && lane.stage > Stage::Created => {
            drift(format!("its machine is {}", machine.state))
        }
        Some(machine) if lane.handle.is_none() => drift(format!(
            "a create was interrupted, and made {}",
            machine.handle
        )),
        Some(_) => (Standing::Agreed, None),
    }
}

fn of_journal(
    lane: &Lane,
    machine: Option<&Machine>,
    standing: Standing,
    remark: Option<String>,
    now: Moment,
) -> Entry {
    Entry {
        label: Some(lane.label.clone()),
        provider: lane.terms.provider.clone(),
        region: lane.terms.region.clone(),
        instance_type: lane.terms.instance_type.clone(),
        address: lane.address.as_ref().map(|(address, _)| address.clone()),
        stage: Some(lane.stage),
        machine: machine.map(|machine| machine.state),
        age_s: Some(now.since(lane.created).as_secs()),
        left_s: Some(lane.expires.since(now).as_secs()),
        milli_usd: lane.milli_usd(now),
        standing,
        remark,
    }
}

fn orphan(machine: &Machine, now: Moment) -> Entry {
    let mark = machine.mark.as_ref();
    let owner = mark.map_or("", |mark| mark.owner.as_str());
    let owner = if owner.is_empty() { "nobody" } else { owner };
    let created = mark.and_then(|mark| mark.created);
    let expires = mark.and_then(|mark| mark.expires);
    Entry {
        label: mark.map(|mark| mark.label.clone()),
        provider: machine.handle.provider.clone(),
        region: machine.handle.region.clone(),
        instance_type: machine.instance_type.clone(),
        address: machine.address.clone(),
        stage: None,
        machine: Some(machine.state),
        age_s: created.map(|created| now.since(created).as_secs()),
        left_s: expires.map(|expires| expires.since(now).as_secs()),
        milli_usd: None,
        standing: Standing::Orphan,
        remark: Some(format!("made by {owner}; no journal here knows it")),
    }
}
