//! Trees removed: no link followed, no other tree entered, however deep and however many.
//!
//! A folder that is nested deeper than [`MAX_OPEN`] is moved up to the top of the tree and removed
//! from there: the descriptors that a removal holds are bounded, the depth of what it removes is not.

use std::os::fd::OwnedFd;

use firelane_guest_proto::files::RemoveSpec;
use firelane_guest_proto::message::{Refused, RefusedCode};
use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, openat2, renameat_with, unlinkat};
use rustix::io::Errno;

use super::list::each_name;
use super::place::{BENEATH, FOLDER, Place, code_of};
use super::put::with_free_name;
use crate::exec::refused;

/// Folders that are open at once.
const MAX_OPEN: usize = 32;
/// Names that one request removes: a program that makes them as fast as they go shall not keep us.
const MAX_REMOVED: u64 = 1 << 20;

/// Removes what is at a path. `wanted` is asked again and again whether to go on.
pub(crate) fn remove(spec: &RemoveSpec, wanted: impl Fn() -> bool) -> Result<(), Refused> {
    let place = Place::parse(&spec.path)?;
    let (parent, name) = place.existing_parent()?;
    let failed = |errno| place.failed("remove", errno);
    match unlinkat(&parent, name, AtFlags::empty()) {
        Ok(()) => return Ok(()),
        Err(Errno::ISDIR) => {}
        Err(errno) => return Err(failed(errno)),
    }
    if !spec.recursive {
        return unlinkat(&parent, name, AtFlags::REMOVEDIR).map_err(failed);
    }
    let top = openat2(&parent, name, FOLDER, Mode::empty(), BENEATH).map_err(failed)?;
    let mut left = MAX_REMOVED;
    empty(top, &mut left, wanted).map_err(|stopped| match stopped {
        Stopped::Failed(name, errno) => {
            let name = String::from_utf8_lossy(&name);
            let path = place.path();
            let message = format!(
                "cannot remove {} in {}: {errno}",
                name.escape_debug(),
                path.escape_debug()
            );
            refused(code_of(errno), message)
        }
        Stopped::TooMany => {
            let message = format!("{MAX_REMOVED} entries are removed and others are left");
            refused(RefusedCode::Exhausted, message)
        }
        Stopped::Unwanted => {
            let message = "nobody wants the rest removed".into();
            refused(RefusedCode::Internal, message)
        }
    })?;
    unlinkat(&parent, name, AtFlags::REMOVEDIR).map_err(failed)
}

#[derive(Debug, PartialEq, Eq)]
enum Stopped {
    /// At this name.
    Failed(Vec<u8>, Errno),
    TooMany,
    Unwanted,
}

/// Removes everything in `top`.
fn empty(top: OwnedFd, left: &mut u64, wanted: impl Fn() -> bool) -> Result<(), Stopped> {
    // Each with its name in the one before.
    let mut open: Vec<(OwnedFd, Vec<u8>)> = vec![(top, Vec::new())];
    while let Some((folder, _)) = open.last() {
        let mut inner = None;
        let mut stopped = None;
        let before = *left;
        let read = each_name(folder, |name| {
            if *left == 0 {
                stopped = Some(Stopped::TooMany);
            } else if !wanted() {
                stopped = Some(Stopped::Unwanted);
            } else {
                match unlinkat(folder, name, AtFlags::empty()) {
                    // Somebody else was faster.
                    Ok(()) | Err(Errno::NOENT) => *left -= 1,
                    Err(Errno::ISDIR) => inner = Some(name.to_vec()),
                    Err(errno) => stopped = Some(Stopped::Failed(name.to_vec(), errno)),
                }
            }
            Ok(inner.is_none() && stopped.is_none())
        });
        read.map_err(|errno| Stopped::Failed(b".".to_vec(), errno))?;
        if let Some(stopped) = stopped {
            return Err(stopped);
        }
        let Some(name) = inner else {
            // Names may have been passed over while others went.
            if *left < before {
                continue;
            }
            let Some((done, name)) = open.pop() else {
                break;
            };
            let Some((parent, _)) = open.last() else {
                break;
            };
            drop(done);
            match unlinkat(parent, &*name, AtFlags::REMOVEDIR) {
                // Not empty: a program has put something there. It is found again from above.
                Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::NOTDIR) => {}
                Err(errno) => return Err(Stopped::Failed(name, errno)),
            }
            *left = left.saturating_sub(1);
            continue;
        };
        let failed = |errno| Stopped::Failed(name.clone(), errno);
        if open.len() >= MAX_OPEN {
            let top = &open[0].0;
            let up = |free: &str| renameat_with(folder, &*name, top, free, RenameFlags::NOREPLACE);
            with_free_name(up).map_err(failed)?;
            *left = left.saturating_sub(1);
            continue;
        }
        let flags = FOLDER | OFlags::NOFOLLOW;
        match openat2(folder, &*name, flags, Mode::empty(), BENEATH) {
            Ok(folder) => open.push((folder, name)),
            // Something else has the name by now.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => *left = left.saturating_sub(1),
            Err(errno) => return Err(failed(errno)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn open(path: &Path) -> OwnedFd {
        rustix::fs::open(path, FOLDER, Mode::empty()).unwrap()
    }

    #[test]
    fn trees_deeper_than_the_descriptors_go_and_what_links_lead_to_stays() {
        let lab = tempfile::tempdir().unwrap();
        let (tree, outside) = (lab.path().join("tree"), lab.path().join("outside"));
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "x").unwrap();
        let mut deep = tree.clone();
        for _ in 0..200 {
            deep.push("d");
            fs::create_dir_all(&deep).unwrap();
            fs::write(deep.join("file"), "x").unwrap();
            std::os::unix::fs::symlink(&outside, deep.join("link")).unwrap();
        }
        empty(open(&tree), &mut 10_000, || true).unwrap();
        assert_eq!(fs::read_dir(&tree).unwrap().count(), 0);
        assert!(outside.join("kept").exists());
    }

    #[test]
    fn the_work_is_bounded_and_can_be_given_up() {
        let lab = tempfile::tempdir().unwrap();
        for number in 0..100 {
            fs::write(lab.path().join(number.to_string()), "x").unwrap();
        }
        let removed = empty(open(lab.path()), &mut 10, || true);
        assert_eq!(removed, Err(Stopped::TooMany));
        assert_eq!(fs::read_dir(lab.path()).unwrap().count(), 90);
        let removed = empty(open(lab.path()), &mut 10, || false);
        assert_eq!(removed, Err(Stopped::Unwanted));
    }
}
