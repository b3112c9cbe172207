//! The programs are built, if they are to be; the services are installed and started.

use firelane_model::lane::{Lane, Step};

use super::reach::log_in;
use crate::crew::{Crew, StepError};
use crate::install::{self, Release};
use crate::progress::Event;

/// Runs the installation on the machine. What failed is in its deploy-status and in the error.
pub(crate) async fn deploy(
    crew: &Crew<'_>,
    lane: &Lane,
    release: &Release,
) -> Result<(), StepError> {
    let step = Step::Deploy;
    let host = log_in(crew, lane, step).await?;
    if release.sources().is_some() {
        let message = "the programs are built on the machine".to_owned();
        crew.progress.tell(&Event::Note { step, message });
        install::build(&*host, crew.timing.build).await?;
    }
    install::install(&*host, crew.timing.deploy).await
}
