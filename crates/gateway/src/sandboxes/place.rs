//! Where a sandbox is.

use firelane_model::id::SandboxId;
use firelane_store::bus::Calls;
use firelane_wire::bus::{FindSandbox, SandboxRef};
use firelane_wire::problem::Problem;

use crate::Gateway;

/// A sandbox and the agent that has it.
pub(super) struct Place {
    pub(super) agent: Calls,
    pub(super) sandbox: SandboxRef,
}

impl Gateway {
    /// Where the tenant's sandbox is.
    pub(super) async fn place(&self, tenant: String, id: SandboxId) -> Result<Place, Problem> {
        let find = FindSandbox {
            tenant: tenant.clone(),
            id,
        };
        let host = self.coordinator.ask(&find).await?;
        Ok(Place {
            agent: self.agent(&host),
            sandbox: SandboxRef { tenant, id },
        })
    }
}
