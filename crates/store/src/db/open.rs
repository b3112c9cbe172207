//! Opening the file, and refusing it.
//!
//! A new database is made whole under another name and then renamed, so a file of ours is never half
//! made: an empty one is damaged, and its first page always names us. What is there is looked at from the outside to the
//! inside, each look changing nothing: our lock, the first page as bytes, then SQLite's check of the
//! whole file by a connection that only reads and leaves the WAL as it is.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::readers::READERS;
use super::refusal::OpenError;
use super::schema::{self, APPLICATION_ID, LATEST};

/// How long a statement waits for a lock that another program holds. None of ours does.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// The same while opening: whoever holds it then was there before us, and will stay.
const OPEN_TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes of the WAL that are kept for reuse after a checkpoint.
const WAL_KEPT_BYTES: i64 = 64 * 1024 * 1024;
/// Page cache of each connection, in KiB.
const CACHE_KIB: i64 = 8 * 1024;
/// Prepared statements that a connection keeps: more than there are.
const STATEMENTS: usize = 128;
/// Holds tenants' code and output.
const MODE: u32 = 0o600;

pub(super) struct Opened {
    pub(super) writer: Connection,
    pub(super) readers: Vec<Connection>,
    pub(super) lock: Lock,
}

/// The lock on `<path>.lock`, until it is dropped. The file stays.
pub(super) struct Lock {
    _file: File,
}

pub(super) fn open(path: &Path) -> Result<Opened, OpenError> {
    let lock = lock(path)?;
    let version = match header(path)? {
        Some(header) => {
            check_header(path, &header)?;
            inspect(path)?
        }
        None => {
            create(path)?;
            LATEST
        }
    };
    let failed = |source| OpenError::sqlite("open", path, source);
    let writer = connect_writer(path, version).map_err(failed)?;
    let readers = (0..READERS).map(|_| connect_reader(path));
    let readers = readers.collect::<rusqlite::Result<_>>().map_err(failed)?;
    Ok(Opened {
        writer,
        readers,
        lock,
    })
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn lock(path: &Path) -> Result<Lock, OpenError> {
    let lock = beside(path, ".lock");
    let failed = |source| OpenError::file("lock", &lock, source);
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).create(true).mode(MODE);
    let file = options.open(&lock).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(Lock { _file: file }),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse {
            path: path.to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// Length of SQLite's header.
const HEADER: usize = 100;

/// What is looked at before SQLite sees the file.
struct Header {
    /// The first of the file.
    bytes: Vec<u8>,
    /// All of it.
    file_bytes: u64,
    /// Whether changes wait in the WAL.
    wal: bool,
}

/// The beginning of the file; none if there is no file.
fn header(path: &Path) -> Result<Option<Header>, OpenError> {
    let failed = |source| OpenError::file("read", path, source);
    let wal = fs::metadata(beside(path, "-wal")).is_ok_and(|wal| wal.len() > 0);
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if wal {
                // SQLite would play it into a new file.
                let finding = "its -wal file is there, and the file itself is not";
                return Err(damaged(path, finding));
            }
            return Ok(None);
        }
        Err(error) => return Err(failed(error)),
    };
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(foreign(path, "it is no regular file"));
    }
    let mut bytes = Vec::with_capacity(HEADER);
    file.take(HEADER as u64)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    Ok(Some(Header {
        bytes,
        file_bytes: metadata.len(),
        wal,
    }))
}

/// Offsets are those of the SQLite file format, section 1.3.
fn check_header(path: &Path, header: &Header) -> Result<(), OpenError> {
    let bytes = &header.bytes;
    if bytes.is_empty() {
        return Err(damaged(path, "it is empty"));
    }
    if !bytes.starts_with(b"SQLite format 3\0") {
        return Err(foreign(
            path,
            "SQLite did not write it, or its beginning is lost",
        ));
    }
    if bytes.len() < HEADER {
        return Err(damaged(path, "its header is cut off"));
    }
    if bytes[68..72] != APPLICATION_ID.to_be_bytes() {
        return Err(foreign(path, "another program made it with SQLite"));
    }
    let page_bytes = match u16::from_be_bytes([bytes[16], bytes[17]]) {
        1 => 65_536,
        bytes => u64::from(bytes),
    };
    // SQLite takes the missing end of the last page for zeros. A checkpoint that was cut off may leave
    // such a page, but then the WAL has all of it.
    if !header.wal && header.file_bytes.checked_rem(page_bytes) != Some(0) {
        return Err(damaged(path, "its last page is cut off"));
    }
    Ok(())
}

fn damaged(path: &Path, finding: &str) -> OpenError {
    OpenError::Damaged {
        path: path.to_owned(),
        finding: finding.to_owned(),
    }
}

fn foreign(path: &Path, found: &str) -> OpenError {
    OpenError::Foreign {
        path: path.to_owned(),
        found: found.to_owned(),
    }
}

/// Checks all pages, and that the version is known; returns that.
fn inspect(path: &Path) -> Result<i64, OpenError> {
    let failed = |source| OpenError::sqlite("check", path, source);
    let connection = connect_reader(path).map_err(failed)?;
    connection.busy_timeout(OPEN_TIMEOUT).map_err(failed)?;
    let version: i64 = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(failed)?;
    if version > LATEST {
        return Err(OpenError::Newer {
            path: path.to_owned(),
            found: version,
            known: LATEST,
        });
    }
    let finding: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(failed)?;
    if finding != "ok" {
        return Err(damaged(path, &finding));
    }
    if version < 1 {
        return Err(damaged(path, "it has no version"));
    }
    Ok(version)
}

fn create(path: &Path) -> Result<(), OpenError> {
    let new = beside(path, ".new");
    let made = make(&new).and_then(|()| {
        fs::rename(&new, path).map_err(|source| OpenError::file("create", path, source))
    });
    if made.is_err() {
        // What is left of it is removed by the next attempt, if not by this one.
        let _ = fs::remove_file(&new);
        return made;
    }
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|source| OpenError::file("flush", folder, source))
}

fn make(new: &Path) -> Result<(), OpenError> {
    for left in ["", "-journal", "-wal", "-shm"] {
        let left = beside(new, left);
        match fs::remove_file(&left) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(OpenError::file("remove", &left, error));
            }
            _ => {}
        }
    }
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(MODE).open(new);
    let file = file.map_err(|source| OpenError::file("create", new, source))?;
    let filled = || {
        let mut connection = Connection::open_with_flags(new, flags(true))?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "application_id", APPLICATION_ID)?;
        schema::migrate(&mut connection, 0)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.close().map_err(|(_, error)| error)
    };
    filled().map_err(|source| OpenError::sqlite("create", new, source))?;
    file.sync_all()
        .map_err(|source| OpenError::file("flush", new, source))
}

/// Connections stay in one thread at a time, so SQLite's own locks are left out.
fn flags(writes: bool) -> OpenFlags {
    let access = if writes {
        OpenFlags::SQLITE_OPEN_READ_WRITE
    } else {
        OpenFlags::SQLITE_OPEN_READ_ONLY
    };
    access | OpenFlags::SQLITE_OPEN_NO_MUTEX
}

fn connect_writer(path: &Path, version: i64) -> rusqlite::Result<Connection> {
    let mut connection = Connection::open_with_flags(path, flags(true))?;
    // A failure from here to the end must leave the WAL as it is.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.busy_timeout(OPEN_TIMEOUT)?;
    configure(&connection)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // So that REPLACE meets the triggers that refuse deletes.
    connection.pragma_update(None, "recursive_triggers", true)?;
    connection.query_row(
        &format!("PRAGMA journal_size_limit = {WAL_KEPT_BYTES}"),
        [],
        |_| Ok(()),
    )?;
    // Nobody else writes: else the first write of a tenant would find out.
    connection.execute_batch("BEGIN IMMEDIATE; ROLLBACK")?;
    schema::migrate(&mut connection, version)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    Ok(connection)
}

fn connect_reader(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, flags(false))?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    configure(&connection)?;
    Ok(connection)
}

/// What all connections have in common.
fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    // The file may have been made by somebody who means us harm, or have been damaged.
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)
}
