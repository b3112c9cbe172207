//! What is asked of a provider, and what there is.

use std::collections::BTreeMap;
use std::fmt;

pub use firelane_model::lane::Handle;
use firelane_model::lane::{Label, LaneId};
use firelane_model::time::Moment;
use serde::{Deserialize, Serialize};

/// A machine that is wanted. Two creates with the same [`Spec::lane`] mean the same machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// The lane's name, chosen by its user.
    pub label: Label,
    /// The lane itself: the idempotency token of the create.
    pub lane: LaneId,
    /// Who owns it, as told to others that look at the account. Letters, digits and hyphens.
    pub owner: String,
    /// In the provider's words.
    pub region: String,
    /// In the provider's words.
    pub instance_type: String,
    /// Size of the root disk in GiB. A provider whose disks come with the type leaves it out.
    pub disk_gib: u32,
    /// Whether it must have KVM. A provider refuses a type that it knows to have none.
    pub kvm: bool,
    /// What cloud-init reads: a `#cloud-config` document. Empty where [`Capabilities::user_data`]
    /// says that there is no cloud-init.
    ///
    /// [`Capabilities::user_data`]: crate::provider::Capabilities::user_data
    pub user_data: String,
    /// The key that may log in, a line of OpenSSH's `authorized_keys`.
    pub ssh_key: String,
    /// From which networks SSH may come, as CIDR. Not empty.
    pub ssh_from: Vec<String>,
    /// When it was asked for, since the Unix epoch.
    pub created: Moment,
    /// When it may be removed by anybody, since the Unix epoch.
    pub expires: Moment,
    /// What only this provider knows, for example `subnet` of aws. Unknown names are refused.
    pub extras: BTreeMap<String, String>,
}

/// What a machine does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MachineState {
    /// Asked for, not running yet.
    Pending,
    /// It runs, or at least the provider believes so.
    Running,
    /// It exists and does not run. It may still be paid for.
    Stopped,
    /// It is being removed.
    Leaving,
    /// The provider gave up on it.
    Failed,
}

/// A machine that there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Where to find it.
    pub handle: Handle,
    /// What it does.
    pub state: MachineState,
    /// Its public name or address, as soon as it has one.
    pub address: Option<String>,
    /// Port of its SSH server.
    pub ssh_port: u16,
    /// Type, in the provider's words.
    pub instance_type: String,
    /// What its [tags](crate::marker) say. None: it is somebody else's, or lost its tags.
    pub mark: Option<crate::marker::Mark>,
}

impl Machine {
    /// It is being removed, or the provider gave up on it: of no use to a lane.
    pub fn is_going(&self) -> bool {
        matches!(self.state, MachineState::Leaving | MachineState::Failed)
    }
}

impl fmt::Display for MachineState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Leaving => "leaving",
            Self::Failed => "failed",
        })
    }
}
