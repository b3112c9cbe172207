//! Everything is given back.
//!
//! From any stage, also from one at which it is not known whether there is a machine: what a create
//! may have made is looked for by its marker. What is gone already is fine.

use firelane_cloud::Handle;
use firelane_cloud::marker::Which;
use firelane_cloud::provider::Swept;
use firelane_model::lane::{Lane, Step};
use tokio::time::{Instant, sleep};

use super::find::find;
use super::reach::log_in_once;
use crate::crew::{Crew, StepError};
use crate::progress::Event;

/// Gives back what there is of a lane.
pub(crate) async fn retire(crew: &Crew<'_>, lane: &Lane) -> Result<(), StepError> {
    let capabilities = crew.provider.capabilities();
    if !capabilities.makes_machines {
        if lane.entered {
            uninstall(crew, lane).await?;
        }
        return Ok(());
    }
    // What is known goes first, whatever else cannot be found out. One that has an address was told of.
    let unseen = lane.address.is_none();
    if let Some(handle) = &lane.handle {
        give_back(crew, handle, unseen).await?;
    }
    if !lane.maybe_made {
        return Ok(());
    }
    match others(crew, lane).await {
        Ok(others) => {
            for handle in others {
                give_back(crew, &handle, false).await?;
            }
        }
        // There is one machine to a lane, and it is gone.
        Err(error) if lane.handle.is_some() => {
            let message = format!("others with its marker cannot be looked for: {error}");
            let step = Step::Retire;
            crew.progress.tell(&Event::Note { step, message });
        }
        Err(error) => return Err(error),
    }
    sweep(crew, &Which::Lane(lane.lane)).await;
    Ok(())
}

/// Deletes a machine and waits until it is gone. `unseen`: it was just made, and its provider may not
/// know it yet.
pub(crate) async fn give_back(
    crew: &Crew<'_>,
    handle: &Handle,
    unseen: bool,
) -> Result<(), StepError> {
    let late = crew.provider.capabilities().tells_late;
    let begun = Instant::now();
    let mut unseen = unseen;
    crew.provider.delete(handle).await?;
    while crew.provider.get(handle).await?.is_some() || unseen && begun.elapsed() < late {
        if begun.elapsed() >= crew.timing.retire {
            let what = format!("the machine {handle} is still there");
            let after = crew.timing.retire;
            return Err(StepError::Late { what, after });
        }
        sleep(crew.timing.poll).await;
        if unseen {
            // What was not known when it was to be deleted was not deleted.
            crew.provider.delete(handle).await?;
            unseen = crew.provider.get(handle).await?.is_none();
        }
    }
    crew.progress.tell(&Event::Note {
        step: Step::Retire,
        message: format!("machine {handle} is given back"),
    });
    Ok(())
}

/// Removes what is beside machines. What cannot be removed yet is told, and `reap` tries again.
pub(crate) async fn sweep(crew: &Crew<'_>, which: &Which) {
    let swept = crew.provider.sweep(which).await;
    let swept = swept.unwrap_or_else(|error| Swept {
        removed: Vec::new(),
        left: vec![("what is beside machines".to_owned(), error.to_string())],
        used: Vec::new(),
    });
    tell(crew, swept);
}

/// Tells what became of a sweep. That machines use what they need is worth no word.
pub(crate) fn tell(crew: &Crew<'_>, swept: Swept) {
    let removed = swept
        .removed
        .into_iter()
        .map(|what| format!("removed {what}"));
    let left = swept.left.into_iter();
    let left = left.map(|(what, why)| format!("{what} is left: {why}; remedy: firelane reap"));
    for message in removed.chain(left) {
        let step = Step::Retire;
        crew.progress.tell(&Event::Note { step, message });
    }
}

/// Machines of a lane that its journal does not name.
async fn others(crew: &Crew<'_>, lane: &Lane) -> Result<Vec<Handle>, StepError> {
    if !crew.provider.capabilities().lists {
        let by_label = crew
            .provider
            .handle_of(&lane.label, Some(lane.lane), &lane.terms.region);
        let is_other = |handle: &Handle| lane.handle.as_ref() != Some(handle);
        return Ok(by_label.into_iter().filter(is_other).collect());
    }
    let found = find(crew, lane).await?.into_iter();
    Ok(found.map(|machine| machine.handle).collect())
}

/// Removes from somebody's machine exactly what was installed there.
async fn uninstall(crew: &Crew<'_>, lane: &Lane) -> Result<(), StepError> {
    let host = log_in_once(crew, lane).await?;
    crate::install::remove(&*host, crew.timing.deploy).await?;
    crew.progress.tell(&Event::Note {
        step: Step::Retire,
        message: "what was installed is removed".into(),
    });
    Ok(())
}
