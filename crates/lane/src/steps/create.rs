//! A machine that runs and has an address.

use firelane_cloud::{Machine, MachineState, Provider, Spec};
use firelane_model::lane::{Lane, Record, Step};
use tokio::time::{Instant, sleep};

use super::find::find;
use crate::crew::{Crew, StepError};
use crate::journal::Journal;
use crate::progress::Event;

/// Asks for it, or finds what was asked for before; waits until it runs. `again`: a create was
/// begun before, and what became of it is not known.
pub(crate) async fn create(
    crew: &Crew<'_>,
    journal: &mut Journal,
    spec: &Spec,
    again: bool,
) -> Result<(), StepError> {
    let begun = Instant::now();
    if again && !crew.provider.capabilities().lists {
        give_back_unseen(crew, journal).await?;
    }
    let mut machine = match journal.lane() {
        Some(lane) if lane.handle.is_none() && again && crew.provider.capabilities().lists => {
            let found = find(crew, lane).await?;
            found.into_iter().find(|machine| !machine.is_going())
        }
        Some(Lane {
            handle: Some(handle),
            ..
        }) => crew.provider.get(handle).await?,
        _ => None,
    };
    if machine.as_ref().is_none_or(Machine::is_going) {
        let made = crew.provider.create(spec).await?;
        machine = Some(made);
    }
    let Some(mut machine) = machine else {
        return Err(StepError::Machine("there is no machine".into()));
    };
    let handle = machine.handle.clone();
    journal.write(Record::Made { handle })?;
    crew.progress.tell(&Event::Note {
        step: Step::Create,
        message: format!("machine {}", machine.handle),
    });
    let late = crew.provider.capabilities().tells_late;
    let mut seen = false;
    loop {
        if let (MachineState::Running, Some(address)) = (machine.state, machine.address.clone()) {
            let port = machine.ssh_port;
            journal.write(Record::Addressed { address, port })?;
            return Ok(());
        }
        if machine.is_going() || machine.state == MachineState::Stopped {
            console(crew.provider, crew, &machine).await;
            return Err(StepError::Machine(format!(
                "the machine {} does not run: its provider says that it is {}",
                machine.handle, machine.state
            )));
        }
        if begun.elapsed() >= crew.timing.create {
            console(crew.provider, crew, &machine).await;
            let what = format!("the machine {} does not run", machine.handle);
            let after = crew.timing.create;
            return Err(StepError::Late { what, after });
        }
        sleep(crew.timing.poll).await;
        match crew.provider.get(&machine.handle).await? {
            Some(found) => (machine, seen) = (found, true),
            // One that was just made may not be told of yet.
            None if !seen && begun.elapsed() < late => {}
            None => {
                let message = format!("the machine {} has ended by itself", machine.handle);
                return Err(StepError::Machine(message));
            }
        }
    }
}

/// Where machines cannot be looked for, what was begun before is given back first, or there would be
/// two.
async fn give_back_unseen(crew: &Crew<'_>, journal: &Journal) -> Result<(), StepError> {
    let handle = journal.lane().and_then(|lane| {
        let by_label = || {
            let (label, region) = (&lane.label, &lane.terms.region);
            crew.provider.handle_of(label, Some(lane.lane), region)
        };
        lane.handle.clone().or_else(by_label)
    });
    if let Some(handle) = handle {
        crew.provider.delete(&handle).await?;
    }
    Ok(())
}

/// Shows the end of the machine's console, where its provider has it.
pub(crate) async fn console(provider: &dyn Provider, crew: &Crew<'_>, machine: &Machine) {
    show_console(provider, crew, &machine.handle, Step::Create).await;
}

/// Most characters of a log that are shown.
const SHOWN: usize = 4_000;

pub(crate) async fn show_console(
    provider: &dyn Provider,
    crew: &Crew<'_>,
    handle: &firelane_cloud::Handle,
    step: Step,
) {
    match provider.console_log(handle).await {
        Ok(Some(text)) => crew.progress.tell(&Event::Log {
            step,
            source: format!("console of {handle}"),
            text: tail(&text),
        }),
        Ok(None) => {}
        Err(error) => crew.progress.tell(&Event::Note {
            step,
            message: format!("its console cannot be read: {error}"),
        }),
    }
}

/// The end of a log, whole lines, without what would steer a terminal.
pub(crate) fn tail(text: &str) -> String {
    let clean: Vec<char> = text
        .chars()
        .filter(|c| !c.is_control() || *c == '\n')
        .collect();
    let from = clean.len().saturating_sub(SHOWN);
    let end: String = clean[from..].iter().collect();
    match end.split_once('\n') {
        Some((_, whole)) if from > 0 => whole.trim().to_owned(),
        _ => end.trim().to_owned(),
    }
}
