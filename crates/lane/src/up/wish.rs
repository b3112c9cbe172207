//! What is wanted.

use std::collections::BTreeMap;
use std::time::Duration;

use firelane_model::lane::{Label, LaneId};

use crate::cloudinit::Download;

/// What is wanted.
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
    /// Keys that may log in beside the lane's own, lines of OpenSSH's `authorized_keys`.
    pub ssh_keys: Vec<String>,
    /// From which networks SSH may come.
    pub ssh_from: Vec<String>,
    /// The Firecracker that it downloads. None: it gets none, or one is brought.
    pub firecracker: Option<Download>,
    /// How long it may live.
    pub ttl: Duration,
    /// Most that it may cost over that time, in thousandths of a US dollar.
    pub most_milli_usd: Option<u64>,
    /// What becomes of it if a step fails, or its user interrupts.
    pub on_error: OnError,
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
