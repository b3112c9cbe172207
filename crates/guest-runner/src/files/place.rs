//! Paths that requests name: confined to three folders.

use std::os::fd::OwnedFd;

use firelane_guest_proto::message::{Refused, RefusedCode};
use rustix::fs::{Mode, OFlags, ResolveFlags, fchown, mkdirat, openat2};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};

use crate::exec::{USER_ID, refused};

const FOLDERS: [&str; 3] = ["/work", "/home/user", "/tmp"];
pub(super) const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS);
pub(super) const FOLDER: OFlags = OFlags::DIRECTORY.union(OFlags::CLOEXEC);

/// A path inside one of the folders.
pub(crate) struct Place<'a> {
    folder: &'static str,
    rest: Vec<&'a str>,
}

impl<'a> Place<'a> {
    /// Takes the path apart; relative ones are under `/work`.
    pub(crate) fn parse(path: &'a str) -> Result<Place<'a>, Refused> {
        let confined = || {
            let message = format!(
                "'{}' is not under {}",
                path.escape_debug(),
                FOLDERS.join(", ")
            );
            refused(RefusedCode::Confined, message)
        };
        let (folder, rest) = if path.starts_with('/') {
            FOLDERS
                .iter()
                .find_map(|folder| {
                    let rest = path.strip_prefix(folder)?;
                    (rest.is_empty() || rest.starts_with('/')).then_some((*folder, rest))
                })
                .ok_or_else(confined)?
        } else {
            (FOLDERS[0], path)
        };
        let rest: Vec<&str> = rest
            .split('/')
            .filter(|part| !matches!(*part, "" | "."))
            .collect();
        if rest.iter().any(|part| *part == ".." || part.contains('\0')) {
            return Err(confined());
        }
        Ok(Place { folder, rest })
    }

    /// Opens the folder that this is, making what is missing.
    pub(crate) fn make_folder(&self) -> Result<OwnedFd, Refused> {
        make_below(self.folder, &self.rest).map_err(|errno| self.failed("make", errno))
    }

    /// Whether this is one of the folders itself.
    pub(super) fn is_root(&self) -> bool {
        self.rest.is_empty()
    }

    /// The whole path.
    pub(crate) fn path(&self) -> String {
        [&[self.folder], self.rest.as_slice()].concat().join("/")
    }

    /// The folder it is in, made if missing, and its name there.
    pub(super) fn parent(&self) -> Result<(OwnedFd, &'a str), Refused> {
        let (name, folders) = self.rest.split_last().ok_or_else(|| self.is_folder())?;
        let parent = make_below(self.folder, folders)
            .map_err(|errno| self.failed("make folder of", errno))?;
        Ok((parent, name))
    }

    /// The folder it is in, which has to be there, and its name there.
    pub(super) fn existing_parent(&self) -> Result<(OwnedFd, &'a str), Refused> {
        let (name, folders) = self.rest.split_last().ok_or_else(|| self.is_folder())?;
        let parent = self.open(folders, FOLDER);
        Ok((
            parent.map_err(|errno| self.failed("open folder of", errno))?,
            name,
        ))
    }

    /// Opens what is there. Links are not followed, not even the last.
    pub(super) fn open_existing(&self, flags: OFlags) -> Result<OwnedFd, Errno> {
        self.open(&self.rest, flags)
    }

    fn open(&self, parts: &[&str], flags: OFlags) -> Result<OwnedFd, Errno> {
        let folder = rustix::fs::open(self.folder, FOLDER, Mode::empty())?;
        let path = match parts.join("/") {
            path if path.is_empty() => ".".into(),
            path => path,
        };
        openat2(
            &folder,
            &*path,
            flags | OFlags::CLOEXEC,
            Mode::empty(),
            BENEATH,
        )
    }

    fn is_folder(&self) -> Refused {
        let message = format!("{} itself stays as it is", self.folder);
        refused(RefusedCode::Invalid, message)
    }

    /// The refusal of a request that fails at this path.
    pub(super) fn failed(&self, action: &str, errno: Errno) -> Refused {
        self.failed_as(code_of(errno), action, errno)
    }

    /// The same, where the error number means something else than usual.
    pub(super) fn failed_as(&self, code: RefusedCode, action: &str, errno: Errno) -> Refused {
        let path = self.path();
        refused(
            code,
            format!("cannot {action} {}: {errno}", path.escape_debug()),
        )
    }
}

/// What a failed call means to whoever asked.
pub(super) fn code_of(errno: Errno) -> RefusedCode {
    match errno {
        Errno::NOENT | Errno::NOTDIR => RefusedCode::NotFound,
        Errno::XDEV | Errno::LOOP => RefusedCode::Confined,
        Errno::NOSPC | Errno::DQUOT | Errno::NOMEM | Errno::MFILE | Errno::NFILE => {
            RefusedCode::Exhausted
        }
        Errno::EXIST | Errno::NOTEMPTY | Errno::ISDIR | Errno::BUSY => RefusedCode::Conflict,
        Errno::ACCESS | Errno::PERM => RefusedCode::Denied,
        _ => RefusedCode::Invalid,
    }
}

fn make_below(folder: &str, parts: &[&str]) -> Result<OwnedFd, Errno> {
    let mut at = rustix::fs::open(folder, FOLDER, Mode::empty())?;
    for part in parts {
        let open = |at: &OwnedFd| openat2(at, *part, FOLDER, Mode::empty(), BENEATH);
        // Usually it is there: one call less.
        at = match open(&at) {
            Err(Errno::NOENT) => match mkdirat(&at, *part, Mode::from_raw_mode(0o755)) {
                Ok(()) => {
                    let made = open(&at)?;
                    let (user, group) = (Uid::from_raw(USER_ID), Gid::from_raw(USER_ID));
                    fchown(&made, Some(user), Some(group))?;
                    made
                }
                Err(Errno::EXIST) => open(&at)?,
                Err(errno) => return Err(errno),
            },
            opened => opened?,
        };
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_confined() {
        let check = |path: &str, expected: Option<(&str, &[&str])>| {
            let place = Place::parse(path).ok();
            let got = place
                .as_ref()
                .map(|place| (place.folder, place.rest.as_slice()));
            assert_eq!(got, expected, "{path}");
        };
        check("a.txt", Some(("/work", &["a.txt"])));
        check("./a//b", Some(("/work", &["a", "b"])));
        check("/tmp/x", Some(("/tmp", &["x"])));
        check("/home/user/x/y", Some(("/home/user", &["x", "y"])));
        check("/work", Some(("/work", &[])));
        check("/workshop/x", None);
        check("/etc/passwd", None);
        check("../etc/passwd", None);
        check("/tmp/../etc/passwd", None);
        check("a\0b", None);
    }
}
