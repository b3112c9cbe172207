//! The services are installed and started.

use firelane_model::lane::{Lane, Step};

use super::reach::log_in;
use crate::crew::{Crew, StepError};
use crate::install;

/// Runs the installation on the machine. What failed is in its deploy-status and in the error.
pub(crate) async fn deploy(crew: &Crew<'_>, lane: &Lane) -> Result<(), StepError> {
    let host = log_in(crew, lane, Step::Deploy).await?;
    install::install(&*host, crew.timing.deploy).await
}
