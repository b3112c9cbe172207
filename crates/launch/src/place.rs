//! What there is of a microVM on the host when its VMM is started.

use std::path::PathBuf;

/// What there is on the host for one microVM.
#[derive(Clone, Debug)]
pub struct Place {
    /// Mount point of the jail's root.
    pub mountpoint: PathBuf,
    /// The user that the VMM becomes, if it does.
    pub user: Option<u32>,
    /// Files through which it joins its cgroups.
    pub cgroups: Vec<PathBuf>,
    /// Descriptor that its keeper holds.
    pub kept_descriptor: Option<i32>,
}
