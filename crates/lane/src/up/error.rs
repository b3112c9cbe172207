//! Why there is no verified host, and what became of the lane.

use firelane_cloud::CloudError;
use firelane_cloud::provider::{Check, Verdict};
use firelane_model::lane::{Difference, Label, Step};

use crate::crew::StepError;
use crate::journal::JournalError;
use crate::steps::verify::Row;

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
    /// Its time is over.
    #[error("the time of the lane {label} is over")]
    Expired {
        /// Which.
        label: Label,
    },
    /// Its user asked for the end, before anything was asked for.
    #[error("interrupted before anything was asked for")]
    Interrupted,
    /// Another machine has this label, and this machine knows nothing of it.
    #[error(
        "{owner} has a machine of a lane {label} already, {handle}, which was not made from here"
    )]
    Foreign {
        /// The label.
        label: Label,
        /// Whose it is, as its tags say.
        owner: String,
        /// The machine.
        handle: String,
    },
    /// It would cost too much.
    #[error("{0}")]
    TooDear(String),
    /// Something is asked for that this provider's machines cannot be given.
    #[error("{0}")]
    Unfit(String),
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
    let failed = checks
        .iter()
        .filter(|check| check.verdict == Verdict::Failed);
    let each = failed.map(|check| format!("{}: {}", check.name, check.message));
    each.collect::<Vec<_>>().join("; ")
}
