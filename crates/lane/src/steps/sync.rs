//! The programs are brought to the machine.

use firelane_model::lane::{Lane, Step};

use super::reach::{log_in, must};
use crate::access::Command;
use crate::crew::{Crew, StepError};
use crate::install::{self, INCOMING, Release};
use crate::progress::Event;

/// Stages what is to be installed, and sends it: only what differs from what is there.
pub(crate) async fn sync(crew: &Crew<'_>, lane: &Lane, release: &Release) -> Result<(), StepError> {
    let staged = tempfile::tempdir().map_err(|error| StepError::Release(error.to_string()))?;
    let folder = staged.path().to_owned();
    let release = release.clone();
    let made = tokio::task::spawn_blocking(move || install::stage(&release, &folder)).await;
    made.map_err(|error| StepError::Release(error.to_string()))?
        .map_err(|error| StepError::Release(firelane_cloud::causes(&error)))?;
    let host = log_in(crew, lane, Step::Sync).await?;
    let folder = [
        "install", "-d", "-m", "0700", "-o", "root", "-g", "root", INCOMING,
    ];
    must(&*host, "install", &Command::new(folder).as_root()).await?;
    host.send(staged.path(), INCOMING, crew.timing.sync).await?;
    crew.progress.tell(&Event::Note {
        step: Step::Sync,
        message: format!("{INCOMING} is as here"),
    });
    Ok(())
}
