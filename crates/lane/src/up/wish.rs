//! What is wanted.

use std::collections::BTreeMap;
use std::time::Duration;

use firelane_model::lane::{Label, LaneId};

use crate::cloudinit::Download;

/// How long a lane lives if nobody says.
pub const USUAL_TTL: Duration = Duration::from_secs(4 * 3600);

/// What is wanted. What a lane that exists has, and is not said here, stays as it is; what is said
/// and is otherwise than it has it is refused, but for [`Wish::ssh_from`], which is changed.
#[derive(Clone, Debug)]
pub struct Wish {
    /// The lane's name.
    pub label: Label,
    /// Bits of the lane's id, drawn by the caller; not used for a lane that exists.
    pub lane: LaneId,
    /// Who owns it.
    pub owner: String,
    /// In the provider's words. None: its default.
    pub region: Option<String>,
    /// In the provider's words. None: its default.
    pub instance_type: Option<String>,
    /// Root disk in GiB.
    pub disk_gib: u32,
    /// Whether it has to have KVM.
    pub kvm: bool,
    /// What only the provider knows.
    pub extras: BTreeMap<String, String>,
    /// Keys that may log in beside the lane's own, lines of OpenSSH's `authorized_keys`. Empty: not said.
    pub ssh_keys: Vec<String>,
    /// From which networks SSH may come. Empty: not said.
    pub ssh_from: Vec<String>,
    /// The Firecracker that it downloads.
    pub firecracker: Firecracker,
    /// How long it may live. None: [`USUAL_TTL`].
    pub ttl: Option<Duration>,
    /// Most that it may cost over that time, in thousandths of a US dollar.
    pub most_milli_usd: Option<u64>,
    /// What becomes of it if a step fails, or its user interrupts.
    pub on_error: OnError,
}

/// Which Firecracker a host downloads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Firecracker {
    /// Not said: that which Firelane is tested with, on a host that is to have KVM and can download.
    Usual,
    /// None at all, or one is brought.
    Nothing,
    /// This one.
    This(Download),
}

/// What becomes of a lane that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// It is given back, if its machine was asked for by this very call; one that was there before
    /// is kept.
    CleanUp,
    /// It is kept, to be looked at and gone on with.
    Keep,
}
