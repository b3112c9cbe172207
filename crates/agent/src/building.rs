//! Builds of templates, beside what the service does.
//!
//! A build has a thread of its own. The service does not wait for it when it ends: the build ends with the
//! process, its programs with it, and the next build of the template sweeps what it left.

use std::io;
use std::sync::Arc;

use firelane_image::{BuildError, Definition, Options, Progress, Step, Store};
use tokio::sync::oneshot;

/// A build that was begun.
pub(crate) struct Building(oneshot::Receiver<Result<(), BuildError>>);

/// Why there is no template.
#[derive(Debug, thiserror::Error)]
pub enum BuildingError {
    /// There was no thread for it.
    #[error("the build could not be started")]
    Thread(#[from] io::Error),
    /// It failed.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// It ended without a word.
    #[error("the build broke off")]
    BrokeOff,
}

impl Building {
    /// Begins one; what it is about to do is told to `progress`.
    pub(crate) fn start(
        store: Store,
        definition: Definition,
        options: Options,
        progress: Arc<dyn Progress + Send + Sync>,
    ) -> io::Result<Building> {
        let (done, built) = oneshot::channel();
        std::thread::Builder::new()
            .name("build".into())
            .spawn(move || {
                let built = firelane_image::build(&store, &definition, &options, &*progress);
                // Nobody waits once the service ends.
                let _ = done.send(built.map(drop));
            })?;
        Ok(Building(built))
    }

    /// Waits for its end.
    pub(crate) async fn end(self) -> Result<(), BuildingError> {
        match self.0.await {
            Ok(built) => Ok(built?),
            Err(_) => Err(BuildingError::BrokeOff),
        }
    }
}

/// A build that nobody asked for, which tells of itself in the log.
pub(crate) struct Logged {
    /// What is built.
    pub(crate) template: String,
}

impl Progress for Logged {
    fn step(&self, step: Step) {
        tracing::info!(template = self.template, step = step.name(), "building");
    }

    fn message(&self, text: &str) {
        tracing::debug!(template = self.template, text, "building");
    }
}
