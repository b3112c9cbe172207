//! API keys. Of the secret only a hash is kept.

use rusqlite::{Row, params};

use super::access::{Reading, Writing};
use super::check;
use super::error::DbError;
use super::page::{Page, PageOf};

/// How far `last_used` may lag behind: a key that is busy is not written at every use.
const LAST_USED_LAG_MS: i64 = 60_000;

/// An API key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The public part of the key.
    pub id: String,
    /// Whose it is.
    pub tenant: String,
    /// What its owner calls it.
    pub name: String,
    /// What it may be used for.
    pub scopes: String,
    /// Its rates and budgets, JSON.
    pub limits: String,
    /// Hash of the secret part.
    pub secret_hash: [u8; 32],
    /// When it was made.
    pub created: i64,
    /// Since when it is refused.
    pub revoked_at: Option<i64>,
    /// When it was used last, to the minute.
    pub last_used: Option<i64>,
}

const COLUMNS: &str =
    "seq, id, tenant, name, scopes, limits, secret_hash, created, revoked_at, last_used";

fn of_row(row: &Row<'_>) -> rusqlite::Result<(i64, Key)> {
    let key = Key {
        id: row.get("id")?,
        tenant: row.get("tenant")?,
        name: row.get("name")?,
        scopes: row.get("scopes")?,
        limits: row.get("limits")?,
        secret_hash: row.get("secret_hash")?,
        created: row.get("created")?,
        revoked_at: row.get("revoked_at")?,
        last_used: row.get("last_used")?,
    };
    Ok((row.get("seq")?, key))
}

impl Reading<'_> {
    /// One key.
    pub fn key(&self, id: &str) -> Result<Option<Key>, DbError> {
        let sql = format!("SELECT {COLUMNS} FROM keys WHERE id = ?1");
        Ok(self.one(&sql, [id], of_row)?.map(|(_, key)| key))
    }

    /// Keys of one tenant, or of all, oldest first.
    pub fn keys(&self, tenant: Option<&str>, page: PageOf) -> Result<Page<Key>, DbError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM keys WHERE (?1 IS NULL OR tenant = ?1) AND seq > ?2
             ORDER BY seq LIMIT ?3"
        );
        let found = self.many(&sql, params![tenant, page.above(), page.look_for()], of_row)?;
        Ok(page.of(found))
    }
}

impl Writing<'_> {
    /// Adds a key.
    pub fn insert_key(&self, key: &Key) -> Result<(), DbError> {
        check::id("key", &key.id)?;
        check::tenant(&key.tenant)?;
        check::short("the name of a key", &key.name)?;
        check::short("the scopes of a key", &key.scopes)?;
        check::json("the limits of a key", &key.limits)?;
        self.insert(
            "key",
            &key.id,
            "INSERT INTO keys (id, tenant, name, scopes, limits, secret_hash, created, revoked_at, last_used)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            params![
                key.id,
                key.tenant,
                key.name,
                key.scopes,
                key.limits,
                key.secret_hash,
                key.created,
                key.revoked_at,
                key.last_used
            ],
        )
    }

    /// Has a key refused from now on. Whether there is such a key; of one that was revoked before, the
    /// time stays.
    pub fn revoke_key(&self, id: &str, now: i64) -> Result<bool, DbError> {
        let sql = "UPDATE keys SET revoked_at = coalesce(revoked_at, ?2) WHERE id = ?1";
        Ok(self.execute(sql, params![id, now])? > 0)
    }

    /// Notes that a key was used; not if that was noted less than a minute ago.
    pub fn use_key(&self, id: &str, now: i64) -> Result<(), DbError> {
        // A distance, so that a clock that was set back does not stop it.
        let sql = "UPDATE keys SET last_used = ?2
                   WHERE id = ?1 AND (last_used IS NULL OR abs(?2 - last_used) >= ?3)";
        self.execute(sql, params![id, now, LAST_USED_LAG_MS])?;
        Ok(())
    }
}
