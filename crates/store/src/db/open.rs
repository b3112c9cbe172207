//! What is checked before a file is used as the database.
//!
//! Source: SQLite, "Database File Format", section 1.3: the header of a file has its magic in the
//! first 16 bytes, the user version at 60 and the application id at 68, big-endian.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use rustix::fs::{FlockOperation, flock};

/// Marks our files: "FLAN".
const APPLICATION: u32 = 0x464c_414e;
/// The newest layout that this code knows.
const VERSION: u32 = 1;
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
const HEADER_BYTES: usize = 100;
/// How long a statement waits for a lock: only a stranger can hold one.
const BUSY: Duration = Duration::from_secs(5);

/// Why the database is not used. Its file is as it was.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("another process uses {}", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// It is not a database of ours.
    #[error("{} is not a database of Firelane", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// A newer version has written it.
    #[error("{} has layout {found}, this version knows {VERSION}", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its layout.
        found: u32,
    },
    /// It is damaged.
    #[error("{} is damaged: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// It cannot be read or made.
    #[error("cannot open {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// SQLite cannot use it.
    #[error("cannot open {}", path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
}

impl OpenError {
    /// What the user can do about it.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self {
            OpenError::InUse { .. } => "stop the other 'firelane serve'".into(),
            OpenError::Foreign { path } | OpenError::Damaged { path, .. } => format!(
                "nothing was changed; move {} away, or put a copy of it back",
                path.display()
            ),
            OpenError::Newer { .. } => "use the version of Firelane that wrote it".into(),
            OpenError::File { .. } | OpenError::Sqlite { .. } => {
                "see that its folder is there, can be written, and has space".into()
            }
        }
    }
}

pub(super) struct Opened {
    pub(super) writer: Connection,
    pub(super) reader: Connection,
    pub(super) lock: File,
}

pub(super) fn open(path: &Path) -> Result<Opened, OpenError> {
    let lock = lock(path)?;
    let sqlite = |source: rusqlite::Error| match source.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked) => {
            OpenError::InUse { path: path.into() }
        }
        Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => {
            OpenError::Damaged {
                path: path.into(),
                what: source.to_string(),
            }
        }
        _ => OpenError::Sqlite {
            path: path.into(),
            source,
        },
    };
    let fresh = is_fresh(path)?;
    if !fresh {
        check(path).map_err(sqlite)?.map_or(Ok(()), |what| {
            Err(OpenError::Damaged {
                path: path.into(),
                what,
            })
        })?;
    }
    let writer = connect(path, OpenFlags::default()).map_err(sqlite)?;
    if fresh {
        make(&writer).map_err(sqlite)?;
    }
    writer
        .execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;")
        .map_err(sqlite)?;
    let reader = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(sqlite)?;
    Ok(Opened {
        writer,
        reader,
        lock,
    })
}

/// One process at a time, whatever it does with the file.
fn lock(path: &Path) -> Result<File, OpenError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&name);
    let file = file.map_err(|source| OpenError::File {
        path: name.into(),
        source,
    })?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(_) => Err(OpenError::InUse { path: path.into() }),
    }
}

/// Whether there is nothing yet. What is there must say that it is ours.
fn is_fresh(path: &Path) -> Result<bool, OpenError> {
    let cannot = |source| OpenError::File {
        path: path.into(),
        source,
    };
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(cannot(error)),
    };
    let mut header = Vec::new();
    let read = file.by_ref().take(HEADER_BYTES as u64);
    let mut read = read;
    read.read_to_end(&mut header).map_err(cannot)?;
    if header.is_empty() {
        return Ok(true);
    }
    let number = |at: usize| -> Option<u32> {
        let bytes = header.get(at..at + 4)?;
        Some(u32::from_be_bytes(bytes.try_into().ok()?))
    };
    let path = path.to_path_buf();
    match (header.starts_with(MAGIC), number(68), number(60)) {
        (true, Some(APPLICATION), Some(VERSION)) => Ok(false),
        (true, Some(APPLICATION), Some(found)) => Err(OpenError::Newer { path, found }),
        _ => Err(OpenError::Foreign { path }),
    }
}

/// What SQLite finds wrong with the file, read without changing it.
fn check(path: &Path) -> rusqlite::Result<Option<String>> {
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let found: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    Ok((found != "ok").then_some(found))
}

fn connect(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    Ok(connection)
}

/// The tables, all or none.
fn make(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(&format!(
        "PRAGMA application_id = {APPLICATION};
         BEGIN IMMEDIATE;
         {SCHEMA}
         PRAGMA user_version = {VERSION};
         COMMIT;"
    ))
}

/// Times are microseconds since 1970; JSON and events are kept as they are given.
const SCHEMA: &str = "
    CREATE TABLE runs (
        id TEXT PRIMARY KEY,
        tenant TEXT NOT NULL,
        caller TEXT NOT NULL,
        state TEXT NOT NULL,
        about TEXT NOT NULL,
        request TEXT,
        problem TEXT,
        log BLOB,
        created_us INTEGER NOT NULL,
        started_us INTEGER,
        finished_us INTEGER
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX runs_of_tenant ON runs (tenant, id DESC);
    CREATE INDEX runs_unfinished ON runs (id) WHERE state IN ('queued', 'running');
    CREATE INDEX runs_by_end ON runs (finished_us) WHERE finished_us IS NOT NULL;

    CREATE TABLE idempotency (
        tenant TEXT NOT NULL,
        key TEXT NOT NULL,
        fingerprint BLOB NOT NULL,
        run TEXT NOT NULL,
        created_us INTEGER NOT NULL,
        PRIMARY KEY (tenant, key)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE keys (
        id TEXT PRIMARY KEY,
        about TEXT NOT NULL,
        secret_hash BLOB NOT NULL,
        revoked_us INTEGER
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE usage (
        day INTEGER NOT NULL,
        tenant TEXT NOT NULL,
        key TEXT NOT NULL,
        runs INTEGER NOT NULL,
        cpu_us INTEGER NOT NULL,
        wall_us INTEGER NOT NULL,
        output_bytes INTEGER NOT NULL,
        PRIMARY KEY (tenant, day, key)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE audit (
        seq INTEGER PRIMARY KEY,
        at_us INTEGER NOT NULL,
        actor TEXT NOT NULL,
        action TEXT NOT NULL,
        subject TEXT NOT NULL,
        detail TEXT NOT NULL,
        hash BLOB NOT NULL
    ) STRICT;
    CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit
        BEGIN SELECT RAISE(ABORT, 'the audit is not changed'); END;
    CREATE TRIGGER audit_is_not_removed BEFORE DELETE ON audit
        BEGIN SELECT RAISE(ABORT, 'the audit is not removed'); END;
";
