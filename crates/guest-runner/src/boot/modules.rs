//! Loads the kernel modules that the template brought along in its initrd.

use std::fs::{self, File};
use std::io;

use rustix::io::Errno;
use rustix::system::finit_module;

use super::BootError;

const FOLDER: &str = "/modules";

/// Loads what `/modules/order` lists, in that order: a module comes after those it needs.
///
/// A kernel with everything built in comes without the list.
pub(crate) fn load_all() -> Result<(), BootError> {
    let order = match fs::read_to_string(format!("{FOLDER}/order")) {
        Ok(order) => order,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => {
            let path = format!("{FOLDER}/order").into();
            return Err(BootError::File {
                action: "read",
                path,
                source,
            });
        }
    };
    order
        .lines()
        .filter(|name| !name.is_empty())
        .try_for_each(load)
}

fn load(name: &str) -> Result<(), BootError> {
    let fail = |source| BootError::Module {
        name: name.into(),
        source,
    };
    let file = File::open(format!("{FOLDER}/{name}")).map_err(fail)?;
    match finit_module(&file, c"", 0) {
        // A module for a device that this VMM does not have may refuse to load: the device that
        // is needed and missing is reported where it is needed.
        Ok(()) | Err(Errno::EXIST | Errno::NODEV) => Ok(()),
        Err(errno) => Err(fail(errno.into())),
    }
}
