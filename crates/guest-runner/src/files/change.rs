//! Folders and links made, things moved.

use firelane_guest_proto::files::{MAX_PATH_BYTES, MakeDirSpec, MakeLinkSpec, MoveSpec};
use firelane_guest_proto::message::{Refused, RefusedCode};
use rustix::fs::{
    AtFlags, Mode, RenameFlags, fchmod, mkdirat, openat2, renameat, renameat_with, symlinkat,
    unlinkat,
};
use rustix::io::Errno;

use super::MODE_BITS;
use super::place::{BENEATH, FOLDER, Place};
use super::put::with_free_name;
use crate::exec::refused;

/// Makes a folder.
pub(crate) fn make_dir(spec: &MakeDirSpec) -> Result<(), Refused> {
    let place = Place::parse(&spec.path)?;
    let failed = |errno| match errno {
        Errno::NOTDIR => place.failed_as(RefusedCode::Conflict, "make", errno),
        errno => place.failed("make", errno),
    };
    if place.is_root() {
        return if spec.parents {
            Ok(())
        } else {
            Err(failed(Errno::EXIST))
        };
    }
    let (parent, name) = if spec.parents {
        place.parent()?
    } else {
        place.existing_parent()?
    };
    let mode = Mode::from_raw_mode(spec.mode & MODE_BITS);
    match mkdirat(&parent, name, mode) {
        // Once more, without the mask of the guest-runner.
        Ok(()) => openat2(&parent, name, FOLDER, Mode::empty(), BENEATH)
            .and_then(|made| fchmod(made, mode))
            .or_else(|errno| match errno {
                // A mode that does not even let its owner look.
                Errno::ACCESS => Ok(()),
                errno => Err(errno),
            })
            .map_err(failed),
        Err(Errno::EXIST) if spec.parents => {
            openat2(&parent, name, FOLDER, Mode::empty(), BENEATH).map_err(failed)?;
            Ok(())
        }
        Err(errno) => Err(failed(errno)),
    }
}

/// Makes a symbolic link.
pub(crate) fn make_link(spec: &MakeLinkSpec) -> Result<(), Refused> {
    let place = Place::parse(&spec.path)?;
    let target = spec.target.as_str();
    if target.is_empty() || target.len() >= MAX_PATH_BYTES || target.contains('\0') {
        let message = format!(
            "a link has 1 to {} bytes, none of them NUL",
            MAX_PATH_BYTES - 1
        );
        return Err(refused(RefusedCode::Invalid, message));
    }
    let failed = |errno| place.failed("make", errno);
    let (parent, name) = place.parent()?;
    if !spec.replace {
        return symlinkat(target, &parent, name).map_err(failed);
    }
    let (temporary, ()) =
        with_free_name(|free| symlinkat(target, &parent, free)).map_err(failed)?;
    renameat(&parent, &*temporary, &parent, name).map_err(|errno| {
        // The program may have removed it first; either way it is gone.
        let _ = unlinkat(&parent, &*temporary, AtFlags::empty());
        failed(errno)
    })
}

/// Gives something another path.
pub(crate) fn move_to(spec: &MoveSpec) -> Result<(), Refused> {
    let (from, to) = (Place::parse(&spec.from)?, Place::parse(&spec.to)?);
    let (from_parent, from_name) = from.existing_parent()?;
    let (to_parent, to_name) = to.existing_parent()?;
    let flags = if spec.replace {
        RenameFlags::empty()
    } else {
        RenameFlags::NOREPLACE
    };
    renameat_with(&from_parent, from_name, &to_parent, to_name, flags).map_err(|errno| {
        let action = format!("move {} to", from.path().escape_debug());
        match errno {
            // A folder of the template cannot leave its place.
            Errno::XDEV => to.failed_as(RefusedCode::Invalid, &action, errno),
            Errno::NOTDIR => to.failed_as(RefusedCode::Conflict, &action, errno),
            errno => to.failed(&action, errno),
        }
    })
}
