//! Giving lanes back.

use std::time::Duration;

use firelane_cloud::marker::Which;
use firelane_cloud::{CloudError, Handle, Machine};
use firelane_model::lane::{Label, Record, Stage, Step};
use firelane_model::time::Moment;
use tokio::time::Instant;

use crate::crew::{Crew, StepError};
use crate::journal::{Journal, now};
use crate::progress::Event;
use crate::steps::retire::{self, give_back, sweep, tell};

/// Which lanes of a provider are given back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chosen {
    /// That of one label.
    Label(Label),
    /// All, wherever they were made.
    All,
    /// Those that are older.
    Older(Duration),
    /// Those whose time is over.
    Expired,
}

impl Chosen {
    fn which(&self) -> Which {
        match self {
            Self::Label(label) => Which::Label(label.clone()),
            _ => Which::All,
        }
    }

    /// Whether something of this label, age and end is meant. What is not known is not old.
    fn means(&self, label: &Label, created: Option<Moment>, expires: Option<Moment>) -> bool {
        let now = now();
        match self {
            Self::Label(chosen) => chosen == label,
            Self::All => true,
            Self::Older(age) => created.is_some_and(|created| now.since(created) >= *age),
            Self::Expired => expires.is_some_and(|expires| now >= expires),
        }
    }
}

/// What became of it.
#[derive(Debug, Default)]
pub struct Down {
    /// Lanes that are over.
    pub retired: Vec<Label>,
    /// Machines without a journal here that are gone.
    pub machines: Vec<Handle>,
    /// What could not be given back, and may cost money.
    pub left: Vec<(String, StepError)>,
    /// Why its provider could not be asked for what carries the marker and has no journal here: there
    /// may be nothing, or machines that cost money.
    pub unseen: Option<CloudError>,
}

impl Down {
    /// It was looked, and there was nothing.
    pub fn is_nothing(&self) -> bool {
        self.retired.is_empty()
            && self.machines.is_empty()
            && self.left.is_empty()
            && self.unseen.is_none()
    }

    /// Nothing is left, as far as its provider can tell, and it could be asked.
    pub fn is_clear(&self) -> bool {
        self.left.is_empty() && self.unseen.is_none()
    }

    async fn give_back(&mut self, crew: &Crew<'_>, handle: Handle) {
        match give_back(crew, &handle, false).await {
            Ok(()) => self.machines.push(handle),
            Err(error) => self.left.push((handle.to_string(), error)),
        }
    }
}

/// Gives back what is chosen of the provider's: lanes by their journals, and what carries the marker
/// and has none here. One that fails does not keep the others.
pub async fn down(crew: &Crew<'_>, chosen: &Chosen) -> Result<Down, StepError> {
    let mut down = Down::default();
    // Lanes whose provider has failed already.
    let mut failed = Vec::new();
    for (label, lane) in crew.yard.lanes()? {
        let meant = match &lane {
            Ok(lane) if lane.terms.provider == crew.provider.name() => {
                chosen.means(&label, Some(lane.created), Some(lane.expires))
            }
            Ok(_) => false,
            // A journal that cannot be read: its machine is found by the marker, if there is one.
            Err(_) => *chosen == Chosen::Label(label.clone()),
        };
        if !meant {
            continue;
        }
        let ended = match crew.yard.take(&label) {
            Ok(journal) => retire(crew, journal).await,
            Err(error) => Err(error.into()),
        };
        match ended {
            Ok(()) => down.retired.push(label),
            Err(error) => {
                let what = format!("the lane {label}");
                // What is wrong with a journal says nothing about the machine.
                if !matches!(error, StepError::Journal(_)) {
                    failed.push(label);
                }
                down.left.push((what, error));
            }
        }
    }
    if crew.provider.capabilities().lists {
        match crew.provider.list(&chosen.which()).await {
            Ok(machines) => by_marker(crew, chosen, machines, &failed, &mut down).await,
            Err(error) => down.unseen = Some(error),
        }
    } else if let Chosen::Label(label) = chosen
        && down.is_nothing()
    {
        by_label(crew, label, &mut down).await?;
    }
    match chosen {
        // What is beside machines is shared: it goes when no machine uses it any more.
        Chosen::Label(_) if down.is_nothing() => {}
        // A provider that does not list could not tell what of all is old.
        Chosen::Older(_) | Chosen::Expired if !crew.provider.capabilities().lists => {}
        // What is beside machines cannot be looked for either.
        _ if down.unseen.is_some() => {}
        _ if crew.provider.capabilities().lists => sweep(crew, &chosen.which()).await,
        // Of a provider that does not list, this is what removes machines that no journal here names.
        _ => match crew.provider.sweep(&chosen.which()).await {
            Ok(swept) => tell(crew, swept),
            Err(error) => {
                let what = "whatever carries the marker".to_owned();
                down.left.push((what, error.into()));
            }
        },
    }
    Ok(down)
}

/// Gives up a lane on a machine that is somebody's own and that does not let us in any more: what was
/// installed there stays. One that lets us in is left as it was before, as [`down`] leaves it.
pub async fn forget(crew: &Crew<'_>, label: &Label) -> Result<Down, StepError> {
    if crew.provider.capabilities().makes_machines {
        let name = crew.provider.name();
        let message = format!(
            "the machines of {name} are its provider's, and may cost money: they are given back, not forgotten"
        );
        return Err(StepError::Machine(message));
    }
    let mut down = Down::default();
    let step = Step::Retire;
    match retire(crew, crew.yard.take(label)?).await {
        Ok(()) => {}
        Err(StepError::Host(error)) => {
            let mut journal = crew.yard.take(label)?;
            journal.write(Record::Begun { step })?;
            journal.write(Record::Done { step })?;
            journal.put_aside()?;
            crew.progress.tell(&Event::Note {
                step,
                message: format!("what was installed stays: {error}"),
            });
        }
        Err(error) => return Err(error),
    }
    down.retired.push(label.clone());
    Ok(down)
}

/// Machines that carry the marker, and have no journal here that could be followed.
async fn by_marker(
    crew: &Crew<'_>,
    chosen: &Chosen,
    machines: Vec<Machine>,
    failed: &[Label],
    down: &mut Down,
) {
    for machine in machines {
        // The marker without a label: somebody's hand was in it, and it is still ours to remove.
        let meant = match &machine.mark {
            None => *chosen == Chosen::All,
            Some(mark) => {
                // One that its provider would not give back is told of once.
                !failed.contains(&mark.label)
                    && chosen.means(&mark.label, mark.created, mark.expires)
            }
        };
        if meant {
            down.give_back(crew, machine.handle).await;
        }
    }
}

/// The machine of a label, at a provider that knows nothing else of it.
async fn by_label(crew: &Crew<'_>, label: &Label, down: &mut Down) -> Result<(), StepError> {
    let region = crew.provider.default_region().await?;
    if let Some(handle) = crew.provider.handle_of(label, None, &region) {
        down.give_back(crew, handle).await;
    }
    Ok(())
}

/// Gives one lane back, from whatever stage, and puts its journal aside. A journal that cannot be written
/// does not keep the machine.
pub(crate) async fn retire(crew: &Crew<'_>, mut journal: Journal) -> Result<(), StepError> {
    let step = Step::Retire;
    let Some(lane) = journal.lane().cloned() else {
        return Ok(journal.put_aside()?);
    };
    if lane.stage != Stage::Retired {
        let unwritten = journal.write(Record::Begun { step }).err();
        crew.progress.tell(&Event::Begun { step });
        let begun = Instant::now();
        if let Err(error) = retire::retire(crew, &lane).await {
            let cause = error.to_string();
            crew.progress.tell(&Event::Failed {
                step,
                cause: cause.clone(),
                remedy: error.remedy(),
            });
            if unwritten.is_none() {
                journal.write(Record::Failed { step, cause })?;
            }
            return Err(error);
        }
        let ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        crew.progress.tell(&Event::Done { step, ms });
        match unwritten {
            None => journal.write(Record::Done { step })?,
            Some(error) => return Err(StepError::Unwritten(error)),
        };
    }
    Ok(journal.put_aside()?)
}
