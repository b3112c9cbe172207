//! Snapshots that were refused, kept to be looked at: `quarantine/<number>/`, with the reason in the file `reason`.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::file::{FileError, at, make_folder, put};
use crate::signing::Refusal;

/// Most that are kept, and the most space that they may have in bytes. The oldest go first.
const KEPT: usize = 4;
const KEPT_BYTES: u64 = 2 << 30;
/// Unit of `st_blocks`. Source: POSIX, sys/stat.h; on Linux it is always this.
const BLOCK_BYTES: u64 = 512;
/// Name of the file that tells why.
const REASON: &str = "reason";

/// Something that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantined {
    /// The folder with its files.
    pub folder: PathBuf,
    /// What it is, and why it was refused.
    pub reason: String,
    /// What it takes on the disk, in bytes.
    pub size_bytes: u64,
}

/// Moves a folder out of the way, and removes what is over the bounds. Returns where it is now.
pub(super) fn put_aside(
    root: &Path,
    folder: &Path,
    what: &str,
    reason: &Refusal,
) -> Result<PathBuf, FileError> {
    let all = root.join("quarantine");
    make_folder(&all)?;
    let last = list(root)?.last().and_then(|last| number(&last.folder));
    let mut next = last.map_or(1, |last| last + 1);
    let kept = loop {
        let kept = all.join(format!("{next:06}"));
        match fs::rename(folder, &kept) {
            // Another process puts something aside at the same time.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => next += 1,
            moved => {
                moved.map_err(at("move", folder))?;
                break kept;
            }
        }
    };
    put(
        &kept.join(REASON),
        format!("{what}: {reason}\n").as_bytes(),
        0o644,
    )?;
    trim(root)?;
    Ok(kept)
}

/// What is there, the oldest first.
pub(super) fn list(root: &Path) -> Result<Vec<Quarantined>, FileError> {
    let folder = root.join("quarantine");
    let entries = match fs::read_dir(&folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(at("list", &folder))?,
    };
    let mut all = Vec::new();
    for entry in entries {
        let folder = entry.map_err(at("list", &folder))?.path();
        let reason = fs::read_to_string(folder.join(REASON)).unwrap_or_default();
        all.push(Quarantined {
            reason: reason.trim().to_owned(),
            size_bytes: size(&folder),
            folder,
        });
    }
    all.sort_by_key(|one| number(&one.folder));
    Ok(all)
}

fn trim(root: &Path) -> Result<(), FileError> {
    let mut all = list(root)?;
    while all.len() > KEPT || all.iter().map(|one| one.size_bytes).sum::<u64>() > KEPT_BYTES {
        let oldest = all.remove(0).folder;
        fs::remove_dir_all(&oldest).map_err(at("remove", &oldest))?;
    }
    Ok(())
}

fn number(folder: &Path) -> Option<u64> {
    folder.file_name()?.to_str()?.parse().ok()
}

/// The files are sparse.
fn size(folder: &Path) -> u64 {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    let blocks = files.filter_map(|file| Some(file.metadata().ok()?.blocks()));
    blocks.sum::<u64>() * BLOCK_BYTES
}
