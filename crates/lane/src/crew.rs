//! Who acts on lanes, and with what.

use std::time::Duration;

use firelane_cloud::{CloudError, Provider};

use crate::access::{Access, HostError};
use crate::identity::IdentityError;
use crate::journal::{JournalError, Yard};
use crate::progress::Progress;

/// How long things may take, and how often they are looked at.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// From the request to a machine that runs and has an address. Bare metal takes up to 20 minutes.
    pub create: Duration,
    /// From there to a login. Bare metal boots for up to 20 minutes.
    pub reach: Duration,
    /// How much of that a machine may show another key than its own: its image's, before cloud-init
    /// has planted ours.
    pub other_key: Duration,
    /// Until cloud-init has done its work.
    pub prepare: Duration,
    /// Until the programs are there.
    pub sync: Duration,
    /// Until the programs are built, where the machine does that.
    pub build: Duration,
    /// Until the services run.
    pub deploy: Duration,
    /// One check of a verification.
    pub check: Duration,
    /// The check of sources, which runs all their tests.
    pub sources: Duration,
    /// Until a machine that was given back is gone.
    pub retire: Duration,
    /// Between two looks.
    pub poll: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        let minutes = |count: u64| Duration::from_secs(60 * count);
        Self {
            create: minutes(25),
            reach: minutes(25),
            other_key: minutes(3),
            prepare: minutes(20),
            sync: minutes(20),
            build: minutes(90),
            deploy: minutes(15),
            check: minutes(10),
            sources: minutes(180),
            retire: minutes(15),
            poll: Duration::from_secs(3),
        }
    }
}

/// What acts on a lane.
#[derive(Clone, Copy)]
pub struct Crew<'a> {
    /// Where machines come from.
    pub provider: &'a dyn Provider,
    /// The way into them.
    pub access: &'a dyn Access,
    /// Who is told.
    pub progress: &'a dyn Progress,
    /// Where journals are.
    pub yard: &'a Yard,
    /// How long things may take.
    pub timing: Timing,
}

/// Why a step was not done.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The provider.
    #[error(transparent)]
    Cloud(#[from] Box<CloudError>),
    /// The machine.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Everything is given back.
    #[error("everything is given back, and that cannot be written down")]
    Unwritten(#[source] JournalError),
    /// The keys.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The machine did not become what it should.
    #[error("{0}")]
    Machine(String),
    /// Not in time.
    #[error("{what} after {} s", after.as_secs())]
    Late {
        /// What was missing.
        what: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// A command on the machine failed.
    #[error("{what} ended with exit code {code}: {said}")]
    Command {
        /// Which.
        what: String,
        /// Its exit code.
        code: i32,
        /// The end of what it wrote.
        said: String,
    },
    /// What is to be installed is not there.
    #[error("{0}")]
    Release(String),
    /// Checks of the verification failed.
    #[error("{0} of the checks failed")]
    Unverified(usize),
    /// Its user asked for the end.
    #[error("interrupted")]
    Interrupted,
}

impl StepError {
    /// What its user can do about it, where that is known.
    pub fn remedy(&self) -> Option<String> {
        match self {
            Self::Cloud(error) => error.remedy.as_deref().map(str::to_owned),
            Self::Host(HostError::WrongKey { .. }) => Some(
                "if the machine was set up by somebody else, log in once by hand and compare its key"
                    .to_owned(),
            ),
            Self::Identity(IdentityError::Missing(_)) => Some("install openssh-client".to_owned()),
            _ => None,
        }
    }
}

impl From<CloudError> for StepError {
    fn from(error: CloudError) -> Self {
        Self::Cloud(Box::new(error))
    }
}
