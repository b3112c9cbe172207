//! Files that the host writes.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};

use firelane_guest_proto::message::{MAX_FILE_BYTES, PutSpec, Refused, RefusedCode};
use rustix::fs::{AtFlags, Mode, OFlags, fchmod, openat2, renameat, unlinkat};
use rustix::io::Errno;

use super::MODE_BITS;
use super::place::{BENEATH, Place, code_of};
use crate::exec::refused;

/// How names begin that stand for files until they are whole.
pub(super) const TEMPORARY: &str = ".firelane-";

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

    /// Whether bytes are still to come.
    pub(crate) fn wants_more(&self) -> bool {
        self.left > 0
    }

    /// Gives the file its name, in place of what had it.
    pub(crate) fn finish(mut self) -> Result<(), Refused> {
        if self.left != 0 {
            let message = format!("the file ended {} bytes early", self.left);
            return Err(refused(RefusedCode::Invalid, message));
        }
        renameat(&self.folder, &*self.temporary, &self.folder, &*self.name).map_err(|errno| {
            let message = format!("cannot replace {}: {errno}", self.name.escape_debug());
            refused(code_of(errno), message)
        })?;
        self.finished = true;
        Ok(())
    }
}

/// A file of a name that nothing has yet, whatever a program put there.
fn temporary(folder: &OwnedFd) -> Result<(String, File), Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    with_free_name(|name| {
        let mode = Mode::from_raw_mode(0o600);
        openat2(folder, name, flags, mode, BENEATH).map(File::from)
    })
}

/// Makes something under the first name that nothing has yet.
pub(super) fn with_free_name<T>(
    mut make: impl FnMut(&str) -> Result<T, Errno>,
) -> Result<(String, T), Errno> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    loop {
        let name = format!("{TEMPORARY}{}", NEXT.fetch_add(1, Ordering::Relaxed));
        match make(&name) {
            Ok(made) => return Ok((name, made)),
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
