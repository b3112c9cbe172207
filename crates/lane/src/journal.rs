//! What becomes of each lane, on the disk.
//!
//! ```text
//!   <state>/lanes/<label>/journal     one line of JSON for each record: {"at_ms": ..., "record": ...}
//!   <state>/lanes/<label>/lock        held by the process that acts on the lane
//!   <state>/lanes/<label>/log         what was told of it, for people
//!   <state>/retired/<lane id>         journals of lanes that are over, and their logs, as <lane id>.log
//! ```
//!
//! A record is on the disk (`fsync`) before what it tells of is done. A last line without an end is
//! of a process that was killed while it wrote: it tells of nothing that was done, and is cut off
//! when the next record is written. Any other line that cannot be read stops everything that would
//! act on the lane, and is left as it is.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use firelane_model::lane::{Impossible, Label, Lane, LaneId, Record};
use firelane_model::time::Moment;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

/// A journal that is larger is none of ours: a lane has some dozens of records.
const MOST_BYTES: u64 = 4 << 20;

/// Name of the log in a lane's folder. Who tells writes it.
pub const LOG: &str = "log";

/// Why a journal could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file system.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Another process acts on the lane.
    #[error("another firelane acts on the lane {label}")]
    Busy {
        /// Which lane.
        label: Label,
    },
    /// A line that is no record.
    #[error("line {line} of {} is no record of a lane", path.display())]
    Line {
        /// The journal.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// A record that does not follow on those before it.
    #[error("line {line} of {} does not follow on the lines before it", path.display())]
    Order {
        /// The journal.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// Why not.
        #[source]
        source: Impossible,
    },
    /// Too large to be one.
    #[error("{} is larger than {MOST_BYTES} bytes, and no journal", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
}

/// One line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    /// Milliseconds since the Unix epoch.
    at_ms: u64,
    record: Record,
}

/// A lane whose journal was found, and what it says.
pub type Found = (Label, Result<Lane, JournalError>);

/// The folder of all lanes of one user of this machine.
#[derive(Clone, Debug)]
pub struct Yard {
    folder: PathBuf,
}

impl Yard {
    /// The lanes below this folder. It may be missing.
    pub fn new(folder: impl Into<PathBuf>) -> Yard {
        Yard {
            folder: folder.into(),
        }
    }

    /// Files of one lane. The folder may be missing.
    pub fn folder(&self, label: &Label) -> PathBuf {
        self.folder.join("lanes").join(label.as_str())
    }

    /// Takes a lane to act on it. There may be no journal yet.
    pub fn take(&self, label: &Label) -> Result<Journal, JournalError> {
        let folder = self.folder(label);
        let lock = self.lock(label, &folder)?;
        let lane = read(&folder.join("journal"))?;
        Ok(Journal {
            retired: self.folder.join("retired"),
            folder,
            lane,
            _lock: lock,
        })
    }

    /// Holds a lane's lock. Its folder is made, and on the disk, if it was missing.
    fn lock(&self, label: &Label, folder: &Path) -> Result<File, JournalError> {
        let path = folder.join("lock");
        loop {
            make_private(folder)?;
            for parent in folder.ancestors().skip(1).take(2) {
                sync_folder(parent)?;
            }
            let lock = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&path);
            let lock = match lock {
                // Whoever ended the lane removed the folder in between.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                opened => opened.map_err(io_error("open", &path))?,
            };
            match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) if is_at(&lock, &path)? => return Ok(lock),
                // The same: this is the lock of a folder that is gone.
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    let label = label.clone();
                    return Err(JournalError::Busy { label });
                }
                Err(error) => return Err(io_error("lock", &path)(error.into())),
            }
        }
    }

    /// All lanes that are not over, as their journals tell it now, by label; with those whose
    /// journal cannot be read.
    pub fn lanes(&self) -> Result<Vec<Found>, JournalError> {
        let folder = self.folder.join("lanes");
        let mut lanes = Vec::new();
        for name in names(&folder)? {
            let Ok(label) = name.parse::<Label>() else {
                continue;
            };
            match read(&self.folder(&label).join("journal")) {
                Ok(None) => {}
                Ok(Some(lane)) => lanes.push((label, Ok(lane))),
                Err(error) => lanes.push((label, Err(error))),
            }
        }
        lanes.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(lanes)
    }

    /// All lanes that are over, the oldest first.
    pub fn retired(&self) -> Result<Vec<Lane>, JournalError> {
        let folder = self.folder.join("retired");
        let mut lanes = Vec::new();
        for name in names(&folder)? {
            if name.parse::<LaneId>().is_ok() {
                lanes.extend(read(&folder.join(name))?);
            }
        }
        lanes.sort_by_key(|lane: &Lane| lane.created);
        Ok(lanes)
    }
}

/// A lane that this process acts on, and what has become of it.
#[derive(Debug)]
pub struct Journal {
    folder: PathBuf,
    retired: PathBuf,
    lane: Option<Lane>,
    _lock: File,
}

impl Journal {
    /// Where files of the lane are kept: keys and SSH settings.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The lane. None: nothing was planned yet.
    pub fn lane(&self) -> Option<&Lane> {
        self.lane.as_ref()
    }

    /// Writes a record down. When this returns, it is on the disk.
    pub fn write(&mut self, record: Record) -> Result<&Lane, JournalError> {
        let path = self.folder.join("journal");
        let at = now();
        let lane = match &self.lane {
            None => Lane::begin(record.clone(), at),
            Some(lane) => {
                let mut lane = lane.clone();
                lane.apply(record.clone(), at).map(|()| lane)
            }
        };
        // Refused before it is written: it would spoil the journal.
        let lane = lane.map_err(|source| JournalError::Order {
            path: path.clone(),
            line: 0,
            source,
        })?;
        let at_ms = milliseconds(at);
        let mut line =
            serde_json::to_string(&Line { at_ms, record }).expect("a record is JSON in every case");
        line.push('\n');
        append(&path, line.as_bytes()).map_err(io_error("write", &path))?;
        sync_folder(&self.folder)?;
        Ok(self.lane.insert(lane))
    }

    /// Puts the journal of a lane that is over aside, and removes its other files.
    pub fn put_aside(self) -> Result<(), JournalError> {
        let Some(lane) = &self.lane else {
            return remove(&self.folder);
        };
        make_private(&self.retired)?;
        let (from, to) = (
            self.folder.join("journal"),
            self.retired.join(lane.lane.to_string()),
        );
        let log = self.folder.join(LOG);
        match fs::rename(&log, to.with_extension(LOG)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            moved => moved.map_err(io_error("move", &log))?,
        }
        fs::rename(&from, &to).map_err(io_error("move", &from))?;
        sync_folder(&self.retired)?;
        remove(&self.folder)
    }
}

/// The time, since the Unix epoch, in whole milliseconds.
pub fn now() -> Moment {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    Moment::after_origin(Duration::from_millis(milliseconds(Moment::after_origin(
        since,
    ))))
}

fn milliseconds(at: Moment) -> u64 {
    u64::try_from(at.since_origin().as_millis()).unwrap_or(u64::MAX)
}

/// What a journal says. None: there is none, or nothing in it.
fn read(path: &Path) -> Result<Option<Lane>, JournalError> {
    let mut text = String::new();
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error("open", path)(error)),
        Ok(file) => {
            let read = file.take(MOST_BYTES + 1).read_to_string(&mut text);
            read.map_err(io_error("read", path))?;
        }
    }
    if text.len() as u64 > MOST_BYTES {
        let path = path.to_owned();
        return Err(JournalError::TooLarge { path });
    }
    let whole = text.rfind('\n').map_or(0, |end| end + 1);
    let mut lane: Option<Lane> = None;
    for (index, line) in text[..whole].lines().enumerate() {
        let number = index + 1;
        let line: Line = serde_json::from_str(line).map_err(|source| JournalError::Line {
            path: path.to_owned(),
            line: number,
            source,
        })?;
        let at = Moment::after_origin(Duration::from_millis(line.at_ms));
        let applied = match &mut lane {
            None => Lane::begin(line.record, at).map(|begun| lane = Some(begun)),
            Some(lane) => lane.apply(line.record, at),
        };
        applied.map_err(|source| JournalError::Order {
            path: path.to_owned(),
            line: number,
            source,
        })?;
    }
    Ok(lane)
}

/// Adds a line; what a killed process left of its last one is cut off first.
fn append(path: &Path, line: &[u8]) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;

    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o600)
        .open(path)?;
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    let whole = text
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |end| end + 1);
    file.set_len(whole as u64)?;
    file.seek(SeekFrom::Start(whole as u64))?;
    file.write_all(line)?;
    file.sync_all()
}

/// Whether a file is the one that has this path now.
fn is_at(file: &File, path: &Path) -> Result<bool, JournalError> {
    use std::os::unix::fs::MetadataExt;

    let own = file.metadata().map_err(io_error("look at", path))?;
    match fs::metadata(path) {
        Ok(there) => Ok((own.dev(), own.ino()) == (there.dev(), there.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(io_error("look at", path)(error)),
    }
}

/// Names in a folder; none if it is missing.
fn names(folder: &Path) -> Result<Vec<String>, JournalError> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(io_error("read", folder))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(io_error("read", folder))?.file_name();
        names.extend(name.into_string());
    }
    Ok(names)
}

fn make_private(folder: &Path) -> Result<(), JournalError> {
    use std::os::unix::fs::DirBuilderExt;

    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(io_error("make", folder))
}

fn remove(folder: &Path) -> Result<(), JournalError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(io_error("remove", folder)),
    }
}

fn sync_folder(folder: &Path) -> Result<(), JournalError> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(io_error("sync", folder))
}

fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> JournalError + use<> {
    let path = path.to_owned();
    move |source| JournalError::Io {
        doing,
        path,
        source,
    }
}
