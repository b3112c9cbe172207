//! From nothing, or from where it stopped, to a verified host.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use firelane_cloud::provider::{Check, Quote, Verdict as Found};
use firelane_cloud::{CloudError, Spec};
use firelane_model::lane::{Difference, Label, Lane, LaneId, Record, Stage, Step, Terms};
use firelane_model::time::Moment;
use tokio::time::Instant;

use crate::cloudinit;
use crate::crew::{Crew, StepError};
use crate::down;
use crate::identity;
use crate::install::Release;
use crate::journal::{Journal, JournalError, now};
use crate::progress::Event;
use crate::steps::verify::{Row, Verdict};
use crate::steps::{create, deploy, prepare, reach, sync, verify};

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Wish {
    /// The lane's name.
    pub label: Label,
    /// Bits of the lane's id, drawn by the caller; not used for a lane that exists.
    pub lane: LaneId,
    /// Who owns it.
    pub owner: String,
    /// In the provider's words. None: its default.
    pub region: Option<String>,
    /// In the provider's words. None: its default.
    pub instance_type: Option<String>,
    /// Root disk in GiB.
    pub disk_gib: u32,
    /// Whether it has to have KVM.
    pub kvm: bool,
    /// What only the provider knows.
    pub extras: BTreeMap<String, String>,
    /// Keys that may log in beside the lane's own, lines of OpenSSH's `authorized_keys`.
    pub ssh_keys: Vec<String>,
    /// From which networks SSH may come.
    pub ssh_from: Vec<String>,
    /// How long it may live.
    pub ttl: Duration,
    /// Most that it may cost over that time, in thousandths of a US dollar.
    pub most_milli_usd: Option<u64>,
    /// What is installed.
    pub release: Release,
    /// What becomes of it if a step fails, or its user interrupts.
    pub on_error: OnError,
}

/// What becomes of a lane that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// It is given back, if its machine was asked for by this very call; one that was there before
    /// is kept.
    CleanUp,
    /// It is kept, to be looked at and gone on with.
    Keep,
}

/// Why there is no verified host.
#[derive(Debug, thiserror::Error)]
pub enum UpError {
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The provider, before anything was asked for.
    #[error(transparent)]
    Cloud(#[from] Box<CloudError>),
    /// A lane with this label exists and is another one.
    #[error("the lane {label} exists and is another one: {}", listed(differences))]
    Differs {
        /// Which.
        label: Label,
        /// In what.
        differences: Vec<Difference>,
    },
    /// It is being given back.
    #[error("the lane {label} is being given back")]
    Expiring {
        /// Which.
        label: Label,
    },
    /// Another machine has this label, and this machine knows nothing of it.
    #[error("there is a machine of a lane {label} already, {handle}, which was not made from here")]
    Foreign {
        /// The label.
        label: Label,
        /// The machine.
        handle: String,
    },
    /// It would cost too much.
    #[error("{0}")]
    TooDear(String),
    /// The provider would refuse it.
    #[error("the preflight failed: {}", failed_checks(checks))]
    Preflight {
        /// Every check.
        checks: Vec<Check>,
    },
    /// The cloud-init document cannot be made.
    #[error("no cloud-init document can be made: {0}")]
    Document(String),
    /// A step was not done.
    #[error("{step}: {cause}")]
    Step {
        /// Which.
        step: Step,
        /// Why.
        #[source]
        cause: StepError,
        /// What became of the lane.
        then: Then,
        /// Rows of the verification, if it came that far.
        rows: Vec<Row>,
    },
}

/// What became of a lane that failed.
#[derive(Debug)]
pub enum Then {
    /// It is given back.
    GivenBack,
    /// It is there, and may cost money.
    Kept,
    /// It was to be given back, and that failed: it may cost money.
    Left(Box<StepError>),
}

/// A host that works.
#[derive(Clone, Debug)]
pub struct Up {
    /// The lane.
    pub lane: Lane,
    /// What was verified by this call; nothing if it was verified before.
    pub rows: Vec<Row>,
}

impl From<CloudError> for UpError {
    fn from(error: CloudError) -> Self {
        Self::Cloud(Box::new(error))
    }
}

fn listed(differences: &[Difference]) -> String {
    let each = |difference: &Difference| {
        let Difference { name, has, asked } = difference;
        format!("its {name} is {has:?}, and {asked:?} is asked for")
    };
    differences.iter().map(each).collect::<Vec<_>>().join("; ")
}

fn failed_checks(checks: &[Check]) -> String {
    let failed = checks.iter().filter(|check| check.verdict == Found::Failed);
    let each = failed.map(|check| format!("{}: {}", check.name, check.message));
    each.collect::<Vec<_>>().join("; ")
}

/// What would be asked for: what `--dry-run` shows, and every `up` begins with. Spends nothing.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The request.
    pub spec: Spec,
    /// Its price.
    pub quote: Option<Quote>,
}

/// Completes a wish by the provider's defaults, and makes keys and document for it.
pub async fn prepare_spec(
    crew: &Crew<'_>,
    wish: &Wish,
    lane: Option<&Lane>,
    folder: &std::path::Path,
) -> Result<Prepared, UpError> {
    let (region, instance_type) = match lane {
        // What is not said stays as it is.
        Some(lane) => (lane.terms.region.clone(), lane.terms.instance_type.clone()),
        None => (
            crew.provider.default_region().await?,
            crew.provider.default_instance_type().await?,
        ),
    };
    let label = wish.label.clone();
    let identity = identity::make(folder, &label)
        .map_err(|error| UpError::Document(firelane_cloud::causes(&error)))?;
    let created = lane.map_or_else(now, |lane| lane.created);
    let expires = lane.map_or(created + wish.ttl, |lane| lane.expires);
    let mut spec = Spec {
        label,
        lane: lane.map_or(wish.lane, |lane| lane.lane),
        owner: wish.owner.clone(),
        region: wish.region.clone().unwrap_or(region),
        instance_type: wish.instance_type.clone().unwrap_or(instance_type),
        disk_gib: wish.disk_gib,
        kvm: wish.kvm,
        user_data: String::new(),
        ssh_key: identity.public.trim().to_owned(),
        ssh_from: wish.ssh_from.clone(),
        created,
        expires,
        extras: wish.extras.clone(),
    };
    let capabilities = crew.provider.capabilities();
    if capabilities.user_data.is_some() {
        spec.user_data = cloudinit::document(&spec, &identity, &wish.ssh_keys, &capabilities)
            .map_err(|error| UpError::Document(firelane_cloud::causes(&error)))?;
    }
    let quote = crew.provider.quote(&spec).await?;
    Ok(Prepared { spec, quote })
}

/// Brings a lane as far as it goes. `interrupted` ends when its user wants it to stop; what was
/// begun is then undone or kept as [`Wish::on_error`] says.
pub async fn up(
    crew: &Crew<'_>,
    wish: &Wish,
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
    let prepared = prepare_spec(crew, wish, known.as_ref(), &folder).await;
    let prepared = match prepared {
        Ok(prepared) => prepared,
        Err(error) => return Err(nothing_begun(journal, error)),
    };
    let terms = terms(&prepared.spec, crew.provider.name());
    match &known {
        Some(lane) => {
            resumable(lane, &terms)?;
            let (label, stage) = (lane.label.clone(), lane.stage);
            crew.progress.tell(&Event::Resumed { label, stage });
        }
        None => {
            if let Err(error) = plan(crew, wish, &prepared, terms, &mut journal).await {
                return Err(nothing_begun(journal, error));
            }
        }
    }
    let ours = known.is_none_or(|lane| !lane.maybe_made);
    forward(crew, wish, &prepared.spec, journal, ours, interrupted).await
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
    let differences = lane.terms.differences(terms);
    if differences.is_empty() {
        Ok(())
    } else {
        Err(UpError::Differs { label, differences })
    }
}

fn terms(spec: &Spec, provider: &str) -> Terms {
    Terms {
        provider: provider.to_owned(),
        region: spec.region.clone(),
        instance_type: spec.instance_type.clone(),
        disk_gib: spec.disk_gib,
        kvm: spec.kvm,
        extras: spec.extras.clone(),
    }
}

/// Looks at everything that can be looked at for nothing, and writes down what is wanted.
async fn plan(
    crew: &Crew<'_>,
    wish: &Wish,
    prepared: &Prepared,
    terms: Terms,
    journal: &mut Journal,
) -> Result<(), UpError> {
    let Prepared { spec, quote } = prepared;
    let price = quote.as_ref().map(|quote| quote.milli_usd_per_hour);
    affordable(price, wish)?;
    let checks = crew.provider.preflight(spec).await?;
    if checks.iter().any(|check| check.verdict == Found::Failed) {
        return Err(UpError::Preflight { checks });
    }
    if crew.provider.capabilities().lists {
        let which = firelane_cloud::marker::Which::Label(spec.label.clone());
        let machines = crew.provider.list(&which).await?;
        if let Some(machine) = machines.iter().find(|machine| !machine.is_going()) {
            return Err(UpError::Foreign {
                label: spec.label.clone(),
                handle: machine.handle.to_string(),
            });
        }
    }
    crew.progress.tell(&Event::Planned {
        label: spec.label.clone(),
        provider: terms.provider.clone(),
        region: spec.region.clone(),
        instance_type: spec.instance_type.clone(),
        milli_usd_per_hour: price,
        expires: spec.expires.since_origin().as_secs(),
    });
    journal.write(Record::Planned {
        lane: spec.lane,
        label: spec.label.clone(),
        owner: spec.owner.clone(),
        terms,
        expires: spec.expires,
        milli_usd_per_hour: price,
    })?;
    Ok(())
}

/// Whether its price over its whole life is within what its user allows.
fn affordable(price: Option<u64>, wish: &Wish) -> Result<(), UpError> {
    let Some(most) = wish.most_milli_usd else {
        return Ok(());
    };
    let dollars = |milli: u128| format!("{}.{:03} USD", milli / 1000, milli % 1000);
    let Some(price) = price else {
        let message = "its price is not known, and --max-spend is given".to_owned();
        return Err(UpError::TooDear(message));
    };
    let whole = (u128::from(price) * wish.ttl.as_millis()).div_ceil(3_600_000);
    if whole <= u128::from(most) {
        return Ok(());
    }
    Err(UpError::TooDear(format!(
        "it costs {} over its {} h, and --max-spend allows {}",
        dollars(whole),
        wish.ttl.as_secs_f64() / 3600.0,
        dollars(u128::from(most)),
    )))
}

/// Step by step to the end.
async fn forward(
    crew: &Crew<'_>,
    wish: &Wish,
    spec: &Spec,
    mut journal: Journal,
    ours: bool,
    interrupted: impl Future<Output = ()>,
) -> Result<Up, UpError> {
    let mut interrupted = std::pin::pin!(interrupted);
    let mut rows = Vec::new();
    loop {
        let lane = journal.lane().cloned().expect("it is planned");
        let Some(step) = lane.stage.next() else {
            return Ok(Up { lane, rows });
        };
        journal.write(Record::Begun { step })?;
        crew.progress.tell(&Event::Begun { step });
        let begun = Instant::now();
        let done = tokio::select! {
            biased;
            () = &mut interrupted => Err(StepError::Interrupted),
            done = one(crew, wish, spec, &mut journal, step, lane.maybe_made, &mut rows) => done,
        };
        match done {
            Ok(()) => {
                journal.write(Record::Done { step })?;
                let ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
                crew.progress.tell(&Event::Done { step, ms });
            }
            Err(cause) => {
                return Err(failed(crew, wish, journal, ours, step, cause, rows).await);
            }
        }
    }
}

async fn one(
    crew: &Crew<'_>,
    wish: &Wish,
    spec: &Spec,
    journal: &mut Journal,
    step: Step,
    again: bool,
    rows: &mut Vec<Row>,
) -> Result<(), StepError> {
    let lane = journal.lane().cloned().expect("it is planned");
    match step {
        Step::Create => create::create(crew, journal, spec, again).await,
        Step::Reach => reach::log_in(crew, &lane, step).await.map(drop),
        Step::Prepare => prepare::prepare(crew, &lane).await,
        Step::Sync => sync::sync(crew, &lane, &wish.release).await,
        Step::Deploy => deploy::deploy(crew, &lane).await,
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
    crew: &Crew<'_>,
    wish: &Wish,
    mut journal: Journal,
    ours: bool,
    step: Step,
    cause: StepError,
    rows: Vec<Row>,
) -> UpError {
    crew.progress.tell(&Event::Failed {
        step,
        cause: cause.to_string(),
        remedy: cause.remedy(),
    });
    let record = Record::Failed {
        step,
        cause: cause.to_string(),
    };
    let written = journal.write(record).map(drop);
    let then = match written {
        Err(error) => Then::Left(Box::new(error.into())),
        Ok(()) if wish.on_error == OnError::Keep || !ours => Then::Kept,
        Ok(()) => match down::retire(crew, journal).await {
            Ok(()) => Then::GivenBack,
            Err(error) => Then::Left(Box::new(error)),
        },
    };
    UpError::Step {
        step,
        cause,
        then,
        rows,
    }
}

/// The latest time that a lane which is planned now may live to.
pub fn expires(ttl: Duration) -> Moment {
    now() + ttl
}
