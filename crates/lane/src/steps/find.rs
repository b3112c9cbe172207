//! Machines that a create may have made, and of which nothing is written down.

use firelane_cloud::Machine;
use firelane_cloud::marker::Which;
use firelane_model::lane::Lane;
use tokio::time::sleep;

use crate::crew::{Crew, StepError};

/// How often they are looked for before they count as never made: a provider may tell of what it
/// made only some time later.
const LOOKS: u32 = 5;

/// Those with the lane's marker. Where a handle is known already, what is told of now is enough.
pub(crate) async fn find(crew: &Crew<'_>, lane: &Lane) -> Result<Vec<Machine>, StepError> {
    let which = Which::Lane(lane.lane);
    let mut looks = 0;
    loop {
        looks += 1;
        let found = crew.provider.list(&which).await?;
        if !found.is_empty() || lane.handle.is_some() || looks >= LOOKS {
            return Ok(found);
        }
        sleep(crew.timing.poll).await;
    }
}
