//! Why a read or a write failed.

use std::sync::Arc;

use rusqlite::ErrorCode;

/// Why a read or a write failed. After any of them nothing was changed, as [the module](super) says.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DbError {
    /// There is one already.
    #[error("{what} {id} exists")]
    Exists {
        /// What it is.
        what: &'static str,
        /// Which.
        id: String,
    },
    /// A name that cannot be one.
    #[error("{value:?} is no {what}: 1 to 64 ASCII letters, digits, '-', '_' and '.'")]
    BadId {
        /// What it should be.
        what: &'static str,
        /// What was given, or its beginning.
        value: String,
    },
    /// A name that no tenant can have.
    #[error("{value:?} is no tenant: 1 to 128 bytes without control characters")]
    BadTenant {
        /// What was given, or its beginning.
        value: String,
    },
    /// More than a record holds.
    #[error("{what} has {size}, at most {cap} are kept")]
    TooLarge {
        /// Which part of the record.
        what: &'static str,
        /// Its bytes, or its number.
        size: usize,
        /// How many there may be.
        cap: usize,
    },
    /// Another program holds the file's own lock, for longer than a write waits.
    #[error("another program holds the database")]
    Busy {
        /// What SQLite says.
        #[source]
        source: Arc<rusqlite::Error>,
    },
    /// There is no space left for it.
    #[error("no space is left for the database")]
    Full {
        /// What SQLite says.
        #[source]
        source: Arc<rusqlite::Error>,
    },
    /// The file is damaged.
    #[error("the database is damaged")]
    Damaged {
        /// What SQLite says.
        #[source]
        source: Arc<rusqlite::Error>,
    },
    /// Anything else that SQLite can say: mostly input and output.
    #[error("the database failed")]
    Failed {
        /// What SQLite says.
        #[source]
        source: Arc<rusqlite::Error>,
    },
    /// The database was closed.
    #[error("the database is closed")]
    Stopped,
}

/// What a caller does about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The request cannot be kept as it is.
    Invalid,
    /// The request contradicts what is kept.
    Conflict,
    /// Something has to be freed first.
    Exhausted,
    /// It may work later.
    Unavailable,
    /// It is a fault here.
    Internal,
}

impl DbError {
    /// What a caller does about it.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::BadId { .. } | Self::BadTenant { .. } | Self::TooLarge { .. } => Class::Invalid,
            Self::Exists { .. } => Class::Conflict,
            Self::Full { .. } => Class::Exhausted,
            Self::Busy { .. } | Self::Stopped => Class::Unavailable,
            Self::Damaged { .. } | Self::Failed { .. } => Class::Internal,
        }
    }
}

impl From<rusqlite::Error> for DbError {
    fn from(error: rusqlite::Error) -> Self {
        let code = error.sqlite_error_code();
        let source = Arc::new(error);
        match code {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy { source },
            Some(ErrorCode::DiskFull) => Self::Full { source },
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Damaged { source },
            _ => Self::Failed { source },
        }
    }
}

/// Turns the error of an insert into [`DbError::Exists`] where a name is taken.
pub(super) fn exists(error: rusqlite::Error, what: &'static str, id: &str) -> DbError {
    use rusqlite::ffi::{SQLITE_CONSTRAINT_PRIMARYKEY, SQLITE_CONSTRAINT_UNIQUE};
    let taken = error.sqlite_error().is_some_and(|error| {
        [SQLITE_CONSTRAINT_UNIQUE, SQLITE_CONSTRAINT_PRIMARYKEY].contains(&error.extended_code)
    });
    if taken {
        let id = id.to_owned();
        DbError::Exists { what, id }
    } else {
        error.into()
    }
}
