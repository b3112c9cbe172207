//! The audit: what was done to keys, templates and the service, by whom. Each row carries a hash of
//! itself and of the row before, so that a row cannot be changed, removed or put in between without
//! all that follow.
//!
//! ```text
//!   hash(n) = BLAKE3( hash(n-1) ‖ n: i64 ‖ at: i64 ‖ each of actor, action, subject, detail:
//!                     its length as u64, its bytes )          numbers big-endian; hash(0) is zero
//! ```
//!
//! Whoever can write the file can make the whole chain anew: the latest hash, kept elsewhere, is what
//! proves that nobody did.

use rusqlite::{Connection, OptionalExtension, params};

use super::{Db, DbError};

/// What is to be said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewAudit {
    /// When.
    pub at_us: i64,
    /// Who did it.
    pub actor: String,
    /// What was done.
    pub action: String,
    /// To what.
    pub subject: String,
    /// More of it, as JSON.
    pub detail: String,
}

/// A row of the audit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRow {
    /// Its number, from 1.
    pub seq: i64,
    /// What it says.
    pub said: NewAudit,
    /// Its hash.
    pub hash: [u8; 32],
}

/// Where the chain is broken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuditBroken {
    /// A row is missing.
    #[error("row {0} is missing")]
    Missing(i64),
    /// A row is not what its hash says.
    #[error("row {0} is not what its hash says")]
    Changed(i64),
}

fn hash(previous: &[u8; 32], seq: i64, said: &NewAudit) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(previous);
    hasher.update(&seq.to_be_bytes());
    hasher.update(&said.at_us.to_be_bytes());
    for text in [&said.actor, &said.action, &said.subject, &said.detail] {
        hasher.update(&(text.len() as u64).to_be_bytes());
        hasher.update(text.as_bytes());
    }
    hasher.finalize().into()
}

pub(super) fn append(connection: &Connection, said: &NewAudit) -> rusqlite::Result<()> {
    let last: Option<(i64, [u8; 32])> = connection
        .prepare_cached("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1")?
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let (last, previous) = last.unwrap_or((0, [0; 32]));
    let seq = last + 1;
    let mut statement = connection.prepare_cached(
        "INSERT INTO audit (seq, at_us, actor, action, subject, detail, hash)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    statement.execute(params![
        seq,
        said.at_us,
        said.actor,
        said.action,
        said.subject,
        said.detail,
        &hash(&previous, seq, said)[..],
    ])?;
    Ok(())
}

fn verify(connection: &Connection) -> rusqlite::Result<Result<(i64, [u8; 32]), AuditBroken>> {
    let mut statement = connection.prepare(
        "SELECT seq, at_us, actor, action, subject, detail, hash FROM audit ORDER BY seq",
    )?;
    let mut rows = statement.query([])?;
    let (mut count, mut previous) = (0, [0; 32]);
    while let Some(row) = rows.next()? {
        let row = AuditRow {
            seq: row.get(0)?,
            said: NewAudit {
                at_us: row.get(1)?,
                actor: row.get(2)?,
                action: row.get(3)?,
                subject: row.get(4)?,
                detail: row.get(5)?,
            },
            hash: row.get(6)?,
        };
        count += 1;
        if row.seq != count {
            return Ok(Err(AuditBroken::Missing(count)));
        }
        if hash(&previous, row.seq, &row.said) != row.hash {
            return Ok(Err(AuditBroken::Changed(count)));
        }
        previous = row.hash;
    }
    Ok(Ok((count, previous)))
}

impl Db {
    /// Adds a row.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn audit(&self, said: NewAudit) -> Result<(), DbError> {
        self.write(move |connection| append(connection, &said))
            .await
    }

    /// Walks the whole chain; gives how many rows it has and the hash of the last.
    ///
    /// # Errors
    /// [`DbError`]; within, where it is broken.
    pub async fn verify_audit(&self) -> Result<Result<(i64, [u8; 32]), AuditBroken>, DbError> {
        self.read(verify).await
    }
}
