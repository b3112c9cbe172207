//! Under which paths a VMM finds what is ours.

use std::path::{Path, PathBuf};

use firelane_host_proto::message::Role;

/// Where it looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sight {
    /// Under the paths outside.
    AsOutside,
    /// Where firelane-hostd puts it, wherever it is.
    Hosted,
}

impl Sight {
    /// Where it finds a file, or a folder, that is at `outside`.
    pub(super) fn of(self, role: Role, outside: &Path) -> PathBuf {
        match self {
            Sight::AsOutside => outside.to_owned(),
            Sight::Hosted => role.seen(),
        }
    }
}
