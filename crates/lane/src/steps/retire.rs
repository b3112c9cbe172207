//! Everything is given back.
//!
//! From any stage, also from one at which it is not known whether there is a machine: what a create
//! may have made is looked for by its marker. What is gone already is fine.

use firelane_cloud::Handle;
use firelane_cloud::marker::Which;
use firelane_model::lane::{Lane, Step};
use tokio::time::{Instant, sleep};

use super::find::find;
use super::reach::log_in;
use crate::crew::{Crew, StepError};
use crate::progress::Event;

/// Gives back what there is of a lane.
pub(crate) async fn retire(crew: &Crew<'_>, lane: &Lane) -> Result<(), StepError> {
    let capabilities = crew.provider.capabilities();
    if !capabilities.makes_machines && lane.address.is_some() {
        uninstall(crew, lane).await?;
    }
    for handle in handles(crew, lane).await? {
        give_back(crew, &handle).await?;
    }
    if lane.maybe_made {
        sweep(crew, &Which::Lane(lane.lane)).await?;
    }
    Ok(())
}

/// Deletes a machine and waits until it is gone.
pub(crate) async fn give_back(crew: &Crew<'_>, handle: &Handle) -> Result<(), StepError> {
    crew.provider.delete(handle).await?;
    crew.progress.tell(&Event::Note {
        step: Step::Retire,
        message: format!("machine {handle} is given back"),
    });
    if !crew.provider.capabilities().makes_machines {
        return Ok(());
    }
    let begun = Instant::now();
    while crew.provider.get(handle).await?.is_some() {
        if begun.elapsed() >= crew.timing.retire {
            let what = format!("the machine {handle} is still there");
            let after = crew.timing.retire;
            return Err(StepError::Late { what, after });
        }
        sleep(crew.timing.poll).await;
    }
    Ok(())
}

/// Removes what is beside machines. What cannot be removed yet is told, and `reap` tries again.
pub(crate) async fn sweep(crew: &Crew<'_>, which: &Which) -> Result<(), StepError> {
    let swept = crew.provider.sweep(which).await?;
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
    Ok(())
}

/// The machines of a lane: that of its journal, and what else has its marker.
async fn handles(crew: &Crew<'_>, lane: &Lane) -> Result<Vec<Handle>, StepError> {
    let mut handles: Vec<Handle> = lane.handle.iter().cloned().collect();
    if !lane.maybe_made {
        return Ok(handles);
    }
    if !crew.provider.capabilities().lists {
        handles.extend(crew.provider.handle_of(&lane.label, &lane.terms.region));
        handles.dedup();
        return Ok(handles);
    }
    let found = find(crew, lane).await?;
    handles.extend(found.into_iter().map(|machine| machine.handle));
    handles.sort();
    handles.dedup();
    Ok(handles)
}

/// Removes from somebody's machine exactly what was installed there.
async fn uninstall(crew: &Crew<'_>, lane: &Lane) -> Result<(), StepError> {
    let host = log_in(crew, lane, Step::Retire).await?;
    crate::install::remove(&*host, crew.timing.deploy).await?;
    crew.progress.tell(&Event::Note {
        step: Step::Retire,
        message: "what was installed is removed".into(),
    });
    Ok(())
}
