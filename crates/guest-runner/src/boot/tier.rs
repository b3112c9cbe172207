//! The tier of this guest's programs, as the host has written it into the initrd.

use std::fs;
use std::io;

use firelane_guest_proto::Tier;

use super::BootError;

/// One line with the tier's name.
const PATH: &str = "/seccomp";

/// Reads it, before anything but the initrd is there. Where the host says nothing it is the usual one.
pub(crate) fn read() -> Result<Tier, BootError> {
    match fs::read_to_string(PATH) {
        Ok(name) => name.trim_end().parse().map_err(BootError::Tier),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Tier::default()),
        Err(source) => Err(BootError::File {
            action: "read",
            path: PATH.into(),
            source,
        }),
    }
}
