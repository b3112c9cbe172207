//! The audit log: rows that are only added, each with a hash over all before it.
//!
//! # Bytes
//!
//! The hash of row N is BLAKE3, 32 bytes, of these one after the other:
//!
//! | Bytes | What |
//! | --- | --- |
//! | 32 | hash of row N - 1; for row 1, zeros |
//! | 8 | `seq`, which is N: rows are counted from 1 without a gap; unsigned, big-endian |
//! | 8 | `at`, milliseconds since 1970; two's complement, big-endian |
//! | 4 + n | `actor`: length n in bytes, unsigned, big-endian; then UTF-8 |
//! | 4 + n | `action`, the same |
//! | 4 + n | `subject`, the same |
//! | 4 + n | `detail`, the same: JSON, the bytes as they were given |
//!
//! # What it shows
//!
//! [`Db::audit_verify`](super::Db::audit_verify) finds any row that was changed, inserted or removed, unless
//! all rows after it were made anew as well. Who can write the file can do that, and can cut off the
//! last rows. So the [head](AuditHead) is to be noted elsewhere from time to time: a log that contains
//! a noted head has every row up to it as it was.

mod verify;

use rusqlite::{Row, params};

use super::access::{Reading, Writing};
use super::check;
use super::error::DbError;
use super::page::{Page, PageOf};

pub use verify::{AuditFault, AuditVerdict};

/// Something that was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    /// When.
    pub at: i64,
    /// Who did it.
    pub actor: String,
    /// What was done.
    pub action: String,
    /// To what.
    pub subject: String,
    /// The rest, JSON.
    pub detail: String,
}

/// A row of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRow {
    /// Its number, from 1.
    pub seq: u64,
    /// What it says.
    pub entry: AuditEntry,
    /// Hash over it and all before it.
    pub hash: [u8; 32],
}

/// The end of the log: it stands for all rows up to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditHead {
    /// Number of the last row; 0 if there is none.
    pub seq: u64,
    /// Its hash; zeros if there is none.
    pub hash: [u8; 32],
}

impl AuditHead {
    /// The head of an empty log.
    pub const EMPTY: Self = Self {
        seq: 0,
        hash: [0; 32],
    };

    /// The head after one more row, which says this.
    #[must_use]
    pub fn then(&self, entry: &AuditEntry) -> Self {
        let seq = self.seq + 1;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.hash);
        hasher.update(&seq.to_be_bytes());
        hasher.update(&entry.at.to_be_bytes());
        for text in [&entry.actor, &entry.action, &entry.subject, &entry.detail] {
            // No column holds 4 GiB: SQLite ends at 1.
            hasher.update(&(text.len() as u32).to_be_bytes());
            hasher.update(text.as_bytes());
        }
        let hash = *hasher.finalize().as_bytes();
        Self { seq, hash }
    }
}

const COLUMNS: &str = "seq, at, actor, action, subject, detail, hash";

fn of_row(row: &Row<'_>) -> rusqlite::Result<AuditRow> {
    let entry = AuditEntry {
        at: row.get("at")?,
        actor: row.get("actor")?,
        action: row.get("action")?,
        subject: row.get("subject")?,
        detail: row.get("detail")?,
    };
    let (seq, hash) = (row.get("seq")?, row.get("hash")?);
    Ok(AuditRow { seq, entry, hash })
}

impl Reading<'_> {
    /// The end of the log.
    pub fn audit_head(&self) -> Result<AuditHead, DbError> {
        let sql = "SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1";
        let found = self.one(sql, [], |row| {
            let (seq, hash) = (row.get(0)?, row.get(1)?);
            Ok(AuditHead { seq, hash })
        })?;
        Ok(found.unwrap_or(AuditHead::EMPTY))
    }

    /// Rows of the log, oldest first.
    pub fn audit_rows(&self, page: PageOf) -> Result<Page<AuditRow>, DbError> {
        let found = self.audit_page(page, of_row)?;
        Ok(page.of(found))
    }

    fn audit_page<T>(
        &self,
        page: PageOf,
        of_row: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<(i64, T)>, DbError> {
        let sql = format!("SELECT {COLUMNS} FROM audit WHERE seq > ?1 ORDER BY seq LIMIT ?2");
        let params = params![page.above(), page.look_for()];
        self.many(&sql, params, |row| Ok((row.get("seq")?, of_row(row)?)))
    }
}

impl Writing<'_> {
    /// Adds a row. The end of the log with it.
    pub fn append_audit(&self, entry: &AuditEntry) -> Result<AuditHead, DbError> {
        check::short("the actor of an audit row", &entry.actor)?;
        check::short("the action of an audit row", &entry.action)?;
        check::short("the subject of an audit row", &entry.subject)?;
        check::size(
            "the detail of an audit row",
            entry.detail.len(),
            MAX_DETAIL_BYTES,
        )?;
        let head = self.audit_head()?.then(entry);
        let sql = "INSERT INTO audit (seq, at, actor, action, subject, detail, hash)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        self.execute(
            sql,
            params![
                head.seq,
                entry.at,
                entry.actor,
                entry.action,
                entry.subject,
                entry.detail,
                head.hash
            ],
        )?;
        Ok(head)
    }
}

/// Longest detail of a row: the log stays for ever, and is read in pages.
pub const MAX_DETAIL_BYTES: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_over_the_bytes_that_the_module_describes() {
        let entry = AuditEntry {
            at: -2,
            actor: "key k1".to_owned(),
            action: "run".to_owned(),
            subject: "é".to_owned(),
            detail: String::new(),
        };
        let mut bytes = vec![9; 32];
        bytes.extend([0, 0, 0, 0, 0, 0, 1, 4]);
        bytes.extend([255, 255, 255, 255, 255, 255, 255, 254]);
        bytes.extend(b"\0\0\0\x06key k1\0\0\0\x03run\0\0\0\x02\xc3\xa9\0\0\0\0");
        let before = AuditHead {
            seq: 259,
            hash: [9; 32],
        };
        let after = before.then(&entry);
        assert_eq!(after.seq, 260);
        assert_eq!(after.hash, *blake3::hash(&bytes).as_bytes());
    }
}
