//! Step by step to the end, or back.

use std::future::Future;
use std::pin::Pin;

use firelane_cloud::Spec;
use firelane_model::lane::{Lane, Record, Stage, Step, Terms};
use tokio::time::Instant;

use super::error::{Then, UpError};
use super::plan::{Prepared, affordable, plan, prepare_spec};
use super::wish::{OnError, Wish};
use crate::crew::{Crew, StepError};
use crate::down;
use crate::install::Release;
use crate::journal::{Journal, now};
use crate::progress::Event;
use crate::steps::verify::{Row, Verdict};
use crate::steps::{create, deploy, prepare, reach, sync, verify};

/// A host that works.
#[derive(Clone, Debug)]
pub struct Up {
    /// The lane.
    pub lane: Lane,
    /// What was verified by this call; nothing if it was verified before.
    pub rows: Vec<Row>,
}

/// Brings a lane as far as it goes. `interrupted` ends when its user wants it to stop; what was
/// begun is then undone or kept as [`Wish::on_error`] says.
pub async fn up(
    crew: &Crew<'_>,
    wish: &Wish,
    release: &Release,
    interrupted: impl Future<Output = ()>,
) -> Result<Up, UpError> {
    let mut journal = crew.yard.take(&wish.label)?;
    if journal
        .lane()
        .is_some_and(|lane| lane.stage == Stage::Retired)
    {
        journal.put_aside()?;
        journal = crew.yard.take(&wish.label)?;
    }
    let known = journal.lane().cloned();
    let folder = journal.folder().to_owned();
    let mut interrupted = std::pin::pin!(interrupted);
    let ready = async {
        let prepared = prepare_spec(crew, wish, known.as_ref(), &folder).await?;
        match &known {
            Some(lane) => {
                resumable(lane, &prepared.terms)?;
                let life = lane.expires.since(lane.created);
                affordable(lane.milli_usd_per_hour, life, wish)?;
                let (label, stage) = (lane.label.clone(), lane.stage);
                crew.progress.tell(&Event::Resumed { label, stage });
                let_in(crew, lane, &prepared.spec).await?;
            }
            None => plan(crew, wish, &prepared, &mut journal).await?,
        }
        Ok(prepared)
    };
    let ready = tokio::select! {
        biased;
        () = &mut interrupted => Err(UpError::Interrupted),
        ready = ready => ready,
    };
    let prepared = match ready {
        Ok(prepared) => prepared,
        Err(error) => return Err(nothing_begun(journal, error)),
    };
    let ours = known.is_none_or(|lane| !lane.maybe_made);
    let work = Work {
        crew,
        wish,
        release,
        prepared: &prepared,
    };
    forward(&work, journal, ours, interrupted).await
}

/// Nothing was asked for: no trace of the attempt stays.
fn nothing_begun(journal: Journal, error: UpError) -> UpError {
    if journal.lane().is_none()
        && let Err(error) = journal.put_aside()
    {
        tracing::warn!(%error, "files of a lane that was never planned are left");
    }
    error
}

fn resumable(lane: &Lane, terms: &Terms) -> Result<(), UpError> {
    let label = lane.label.clone();
    if lane.stage == Stage::Expiring {
        return Err(UpError::Expiring { label });
    }
    if lane.is_expired(now()) {
        return Err(UpError::Expired { label });
    }
    let differences = lane.terms.differences(terms);
    if differences.is_empty() {
        Ok(())
    } else {
        Err(UpError::Differs { label, differences })
    }
}

/// Its user may be somewhere else than when it was made.
async fn let_in(crew: &Crew<'_>, lane: &Lane, spec: &Spec) -> Result<(), UpError> {
    match &lane.handle {
        Some(handle) => Ok(crew.provider.let_in(handle, spec).await?),
        None => Ok(()),
    }
}

/// What every step has to do with.
struct Work<'a> {
    crew: &'a Crew<'a>,
    wish: &'a Wish,
    release: &'a Release,
    prepared: &'a Prepared,
}

/// Step by step to the end.
async fn forward(
    work: &Work<'_>,
    mut journal: Journal,
    ours: bool,
    mut interrupted: Pin<&mut impl Future<Output = ()>>,
) -> Result<Up, UpError> {
    let crew = work.crew;
    let mut rows = Vec::new();
    loop {
        let lane = journal.lane().cloned().expect("it is planned");
        let Some(step) = lane.stage.next() else {
            return Ok(Up { lane, rows });
        };
        let begun = Instant::now();
        let done = match journal.write(Record::Begun { step }) {
            // Nothing was asked for yet: there is nothing to give back.
            Err(error) if !lane.maybe_made => return Err(error.into()),
            Err(error) => Err(error.into()),
            Ok(_) => {
                crew.progress.tell(&Event::Begun { step });
                tokio::select! {
                    biased;
                    () = &mut interrupted => Err(StepError::Interrupted),
                    done = one(work, &mut journal, step, lane.maybe_made, &mut rows) => done,
                }
            }
        };
        let done = match done {
            Ok(()) => journal
                .write(Record::Done { step })
                .map(drop)
                .map_err(StepError::from),
            failed => failed,
        };
        match done {
            Ok(()) => {
                let ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
                crew.progress.tell(&Event::Done { step, ms });
            }
            Err(cause) => {
                return Err(failed(work, journal, ours, step, cause, rows).await);
            }
        }
    }
}

async fn one(
    work: &Work<'_>,
    journal: &mut Journal,
    step: Step,
    again: bool,
    rows: &mut Vec<Row>,
) -> Result<(), StepError> {
    let Work {
        crew,
        release,
        prepared,
        ..
    } = *work;
    let lane = journal.lane().cloned().expect("it is planned");
    match step {
        Step::Create => create::create(crew, journal, &prepared.spec, again).await,
        Step::Reach => reach::log_in(crew, &lane, step).await.map(drop),
        Step::Prepare => prepare::prepare(crew, &lane, prepared.firecracker.as_ref()).await,
        Step::Sync => sync::sync(crew, &lane, release).await,
        Step::Deploy => deploy::deploy(crew, &lane, release).await,
        Step::Verify => {
            *rows = verify::verify(crew, &lane, true).await?;
            match rows
                .iter()
                .filter(|row| row.verdict == Verdict::Fail)
                .count()
            {
                0 => Ok(()),
                failed => Err(StepError::Unverified(failed)),
            }
        }
        Step::Retire => Ok(()),
    }
}

/// Tells it, writes it down, and gives back what was made by this call.
async fn failed(
    work: &Work<'_>,
    mut journal: Journal,
    ours: bool,
    step: Step,
    cause: StepError,
    rows: Vec<Row>,
) -> UpError {
    let Work { crew, wish, .. } = *work;
    crew.progress.tell(&Event::Failed {
        step,
        cause: cause.to_string(),
        remedy: cause.remedy(),
    });
    let record = Record::Failed {
        step,
        cause: cause.to_string(),
    };
    // A journal that cannot be written does not keep what is to be given back.
    if let Err(error) = journal.write(record) {
        tracing::warn!(error = %firelane_cloud::causes(&error), "a failure is not written down");
    }
    let then = if wish.on_error == OnError::Keep || !ours {
        Then::Kept
    } else {
        match down::retire(crew, journal).await {
            Ok(()) | Err(StepError::Unwritten(_)) => Then::GivenBack,
            Err(error) => Then::Left(Box::new(error)),
        }
    };
    UpError::Step {
        step,
        cause,
        then,
        rows,
    }
}
