//! Whether an ordinary user's VMMs are started by a firelane-hostd.

use std::io;
use std::path::PathBuf;

use firelane_host_proto::{CallError, Client, SOCKET};

/// What there is of it, for this user.
#[derive(Debug)]
pub(crate) enum Hostd {
    /// We are root, and do what it does ourselves.
    Unneeded,
    /// It listens, and takes what we ask for.
    Usable {
        /// Where.
        socket: PathBuf,
        /// The QEMU that it starts, if it has one.
        qemu: Option<PathBuf>,
        /// The Firecracker that it starts, if it has one.
        firecracker: Option<PathBuf>,
    },
    /// There is none.
    Absent,
    /// There is one, and it does not take what we ask for.
    Unusable(CallError),
}

impl Hostd {
    /// The Firecracker that it starts for us.
    pub(crate) fn firecracker(self) -> Option<PathBuf> {
        match self {
            Hostd::Usable { firecracker, .. } => firecracker,
            Hostd::Unneeded | Hostd::Absent | Hostd::Unusable(_) => None,
        }
    }

    /// Looks for it: where `$FIRELANE_HOSTD` says, else where it usually listens.
    pub(crate) fn find() -> Hostd {
        if rustix::process::geteuid().is_root() {
            return Hostd::Unneeded;
        }
        let named = std::env::var_os("FIRELANE_HOSTD").map(PathBuf::from);
        let socket = named.unwrap_or_else(|| SOCKET.into());
        match Client::connect(&socket) {
            Ok(client) => Hostd::Usable {
                socket,
                qemu: client.qemu().map(Into::into),
                firecracker: client.firecracker().map(Into::into),
            },
            Err(CallError::Connect { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Hostd::Absent
            }
            Err(error) => Hostd::Unusable(error),
        }
    }
}
