//! Machines that a create may have made, and of which nothing is written down.

use firelane_cloud::Machine;
use firelane_cloud::marker::Which;
use firelane_model::lane::Lane;
use tokio::time::{Instant, sleep};

use crate::crew::{Crew, StepError};

/// Those with the lane's marker. A provider may tell of what it made only some time later; where a
/// handle is known already, what is told of now is enough.
pub(crate) async fn find(crew: &Crew<'_>, lane: &Lane) -> Result<Vec<Machine>, StepError> {
    let which = Which::Lane(lane.lane);
    let begun = Instant::now();
    let late = crew.provider.capabilities().tells_late;
    loop {
        let found = crew.provider.list(&which).await?;
        if !found.is_empty() || lane.handle.is_some() || begun.elapsed() >= late {
            return Ok(found);
        }
        sleep(crew.timing.poll).await;
    }
}
