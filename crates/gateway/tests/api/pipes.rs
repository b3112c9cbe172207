//! Files of the fake agent.

use firelane_store::bus::{BusError, Server};

use crate::fake::Asked;

pub(crate) async fn register(_: &mut Server, _: Asked) -> Result<(), BusError> {
    Ok(())
}
