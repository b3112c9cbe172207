//! Files put into and got from the guest: confined to three folders, atomic, capped.
//!
//! Paths are resolved by the kernel beneath the folder (`openat2` with `RESOLVE_BENEATH` and
//! `RESOLVE_NO_SYMLINKS`), so no link that a program plants leads the guest-runner elsewhere.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};

use firelane_guest_proto::message::{
    FileInfo, GetSpec, MAX_FILE_BYTES, PutSpec, Refused, RefusedCode,
};
use rustix::fs::{
    AtFlags, Mode, OFlags, ResolveFlags, fchmod, fchown, fstat, mkdirat, openat2, renameat,
    unlinkat,
};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};

use crate::exec::{USER_ID, refused};

const FOLDERS: [&str; 3] = ["/work", "/home/user", "/tmp"];
const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS);
const FOLDER: OFlags = OFlags::DIRECTORY.union(OFlags::CLOEXEC);
/// Permission bits that a put may set: no set-uid, set-gid or sticky.
const MODE_BITS: u32 = 0o777;

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

    /// The whole path.
    pub(crate) fn path(&self) -> String {
        [&[self.folder], self.rest.as_slice()].concat().join("/")
    }

    /// The folder it is in, made if missing, and its name there.
    fn parent(&self) -> Result<(OwnedFd, &'a str), Refused> {
        let Some((name, folders)) = self.rest.split_last() else {
            return Err(refused(
                RefusedCode::Invalid,
                format!("{} is a folder", self.folder),
            ));
        };
        let parent = make_below(self.folder, folders)
            .map_err(|errno| self.failed("make folder of", errno))?;
        Ok((parent, name))
    }

    fn failed(&self, action: &str, errno: Errno) -> Refused {
        let code = match errno {
            Errno::NOENT | Errno::NOTDIR => RefusedCode::NotFound,
            Errno::XDEV | Errno::LOOP => RefusedCode::Confined,
            Errno::NOSPC | Errno::DQUOT | Errno::NOMEM => RefusedCode::Exhausted,
            _ => RefusedCode::Invalid,
        };
        let path = self.path();
        refused(
            code,
            format!("cannot {action} {}: {errno}", path.escape_debug()),
        )
    }
}

fn make_below(folder: &str, parts: &[&str]) -> Result<OwnedFd, Errno> {
    let mut at = rustix::fs::open(folder, FOLDER, Mode::empty())?;
    for part in parts {
        match mkdirat(&at, *part, Mode::from_raw_mode(0o755)) {
            Ok(()) => {
                let made = openat2(&at, *part, FOLDER, Mode::empty(), BENEATH)?;
                fchown(
                    &made,
                    Some(Uid::from_raw(USER_ID)),
                    Some(Gid::from_raw(USER_ID)),
                )?;
                at = made;
            }
            Err(Errno::EXIST) => at = openat2(&at, *part, FOLDER, Mode::empty(), BENEATH)?,
            Err(errno) => return Err(errno),
        }
    }
    Ok(at)
}

/// A file that is being put. Dropped before it is finished, it leaves nothing.
pub(crate) struct Put {
    folder: OwnedFd,
    name: String,
    temporary: String,
    file: File,
    left: u64,
    finished: bool,
}

impl Put {
    /// Starts to write.
    pub(crate) fn start(spec: &PutSpec) -> Result<Put, Refused> {
        if spec.size > MAX_FILE_BYTES {
            let message = format!(
                "the file has {} bytes, the cap is {MAX_FILE_BYTES}",
                spec.size
            );
            return Err(refused(RefusedCode::Exhausted, message));
        }
        let place = Place::parse(&spec.path)?;
        let (folder, name) = place.parent()?;
        let failed = |errno| place.failed("write", errno);
        let (temporary, file) = temporary(&folder).map_err(failed)?;
        let put = Put {
            folder,
            name: name.into(),
            temporary,
            file,
            left: spec.size,
            finished: false,
        };
        fchmod(&put.file, Mode::from_raw_mode(spec.mode & MODE_BITS)).map_err(failed)?;
        fchown(
            &put.file,
            Some(Uid::from_raw(USER_ID)),
            Some(Gid::from_raw(USER_ID)),
        )
        .map_err(failed)?;
        Ok(put)
    }

    /// Writes the next bytes.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        let count = bytes.len() as u64;
        self.left = self.left.checked_sub(count).ok_or_else(|| {
            refused(
                RefusedCode::Invalid,
                "the file has more bytes than announced".into(),
            )
        })?;
        self.file.write_all(bytes).map_err(|error| {
            let message = format!("cannot write {}: {error}", self.name.escape_debug());
            refused(RefusedCode::Exhausted, message)
        })
    }

    /// Gives the file its name, in place of what had it.
    pub(crate) fn finish(mut self) -> Result<(), Refused> {
        if self.left != 0 {
            let message = format!("the file ended {} bytes early", self.left);
            return Err(refused(RefusedCode::Invalid, message));
        }
        renameat(&self.folder, &*self.temporary, &self.folder, &*self.name).map_err(|errno| {
            let message = format!("cannot replace {}: {errno}", self.name.escape_debug());
            refused(RefusedCode::Invalid, message)
        })?;
        self.finished = true;
        Ok(())
    }
}

/// A file of a name that nothing has yet, whatever a program put there.
fn temporary(folder: &OwnedFd) -> Result<(String, File), Errno> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    loop {
        let name = format!(".firelane-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        match openat2(folder, &*name, flags, Mode::from_raw_mode(0o600), BENEATH) {
            Ok(file) => return Ok((name, File::from(file))),
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
    }
}

impl Drop for Put {
    fn drop(&mut self) {
        if !self.finished {
            // The program may have removed it first; either way it is gone.
            let _ = unlinkat(&self.folder, &*self.temporary, AtFlags::empty());
        }
    }
}

/// Opens a file to be got.
pub(crate) fn open_for_get(spec: &GetSpec) -> Result<(File, FileInfo), Refused> {
    let place = Place::parse(&spec.path)?;
    let failed = |errno| place.failed("read", errno);
    let folder = rustix::fs::open(place.folder, FOLDER, Mode::empty()).map_err(failed)?;
    let path = match place.rest.join("/") {
        rest if rest.is_empty() => ".".into(),
        rest => rest,
    };
    // Without NONBLOCK, opening a pipe that a program planted would wait for its other end.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = openat2(&folder, &*path, flags, Mode::empty(), BENEATH).map_err(failed)?;
    let stat = fstat(&file).map_err(failed)?;
    if stat.st_mode & libc::S_IFMT != libc::S_IFREG {
        let message = format!("{} is not a regular file", path.escape_debug());
        return Err(refused(RefusedCode::Invalid, message));
    }
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    let cap = spec.max_bytes.min(MAX_FILE_BYTES);
    if size > cap {
        let message = format!("{} has {size} bytes, the cap is {cap}", path.escape_debug());
        return Err(refused(RefusedCode::Exhausted, message));
    }
    Ok((
        File::from(file),
        FileInfo {
            size,
            mode: stat.st_mode & MODE_BITS,
        },
    ))
}

/// Reads until `buffer` is full or the file ends.
pub(crate) fn read_full(file: &mut impl io::Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
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
