//! Giving lanes back.

use std::time::Duration;

use firelane_cloud::Handle;
use firelane_cloud::marker::Which;
use firelane_model::lane::{Label, Record, Stage, Step};
use firelane_model::time::Moment;
use tokio::time::Instant;

use crate::crew::{Crew, StepError};
use crate::journal::{Journal, now};
use crate::progress::Event;
use crate::steps::retire::{self, give_back, sweep};

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
}

impl Down {
    /// There was nothing.
    pub fn is_nothing(&self) -> bool {
        self.retired.is_empty() && self.machines.is_empty() && self.left.is_empty()
    }

    async fn give_back(&mut self, crew: &Crew<'_>, handle: Handle) {
        match give_back(crew, &handle).await {
            Ok(()) => self.machines.push(handle),
            Err(error) => self.left.push((handle.to_string(), error)),
        }
    }
}

/// Gives back what is chosen of the provider's: lanes by their journals, and what carries the marker
/// and has none here. One that fails does not keep the others.
pub async fn down(crew: &Crew<'_>, chosen: &Chosen) -> Result<Down, StepError> {
    let mut down = Down::default();
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
            Err(error) => down.left.push((format!("the lane {label}"), error)),
        }
    }
    if !crew.provider.capabilities().lists {
        return Ok(down);
    }
    for machine in crew.provider.list(&chosen.which()).await? {
        // The marker without a label: somebody's hand was in it, and it is still ours to remove.
        let Some(mark) = &machine.mark else {
            if *chosen == Chosen::All {
                down.give_back(crew, machine.handle).await;
            }
            continue;
        };
        // A lane that was left above is told of once.
        let told = down
            .left
            .iter()
            .any(|(what, _)| *what == format!("the lane {}", mark.label));
        if told || !chosen.means(&mark.label, mark.created, mark.expires) {
            continue;
        }
        down.give_back(crew, machine.handle).await;
    }
    match chosen {
        // What is beside machines is shared: it goes when no machine uses it any more.
        Chosen::Label(_) if down.is_nothing() => {}
        _ => sweep(crew, &chosen.which()).await?,
    }
    Ok(down)
}

/// Gives one lane back, from whatever stage, and puts its journal aside.
pub(crate) async fn retire(crew: &Crew<'_>, mut journal: Journal) -> Result<(), StepError> {
    let step = Step::Retire;
    let Some(lane) = journal.lane().cloned() else {
        return Ok(journal.put_aside()?);
    };
    if lane.stage != Stage::Retired {
        journal.write(Record::Begun { step })?;
        crew.progress.tell(&Event::Begun { step });
        let begun = Instant::now();
        let lane = journal.lane().cloned().unwrap_or(lane);
        if let Err(error) = retire::retire(crew, &lane).await {
            let cause = error.to_string();
            journal.write(Record::Failed {
                step,
                cause: cause.clone(),
            })?;
            crew.progress.tell(&Event::Failed {
                step,
                cause,
                remedy: error.remedy(),
            });
            return Err(error);
        }
        journal.write(Record::Done { step })?;
        let ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        crew.progress.tell(&Event::Done { step, ms });
    }
    Ok(journal.put_aside()?)
}
