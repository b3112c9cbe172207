//! API keys: of their secrets only the hashes.

use rusqlite::params;

use super::audit::{self, NewAudit};
use super::{Db, DbError};

/// A key as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRow {
    /// Its name.
    pub id: String,
    /// What it is and allows, as JSON.
    pub about: String,
    /// BLAKE3 of its secret.
    pub secret_hash: [u8; 32],
    /// When it was revoked.
    pub revoked_us: Option<i64>,
}

impl Db {
    /// Inserts a key, and what the audit says of it.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn insert_key(&self, key: KeyRow, audit: NewAudit) -> Result<(), DbError> {
        self.write(move |connection| {
            connection.execute(
                "INSERT INTO keys (id, about, secret_hash, revoked_us) VALUES (?1, ?2, ?3, ?4)",
                params![key.id, key.about, &key.secret_hash[..], key.revoked_us],
            )?;
            audit::append(connection, &audit)
        })
        .await
    }

    /// Revokes a key, and says so in the audit; `false` if it is unknown or was revoked before.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn revoke_key(
        &self,
        id: String,
        now_us: i64,
        audit: NewAudit,
    ) -> Result<bool, DbError> {
        self.write(move |connection| {
            let changed = connection.execute(
                "UPDATE keys SET revoked_us = ?2 WHERE id = ?1 AND revoked_us IS NULL",
                (id, now_us),
            )?;
            if changed == 1 {
                audit::append(connection, &audit)?;
            }
            Ok(changed == 1)
        })
        .await
    }

    /// All keys, oldest first.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn keys(&self) -> Result<Vec<KeyRow>, DbError> {
        self.read(|connection| {
            let mut statement = connection
                .prepare("SELECT id, about, secret_hash, revoked_us FROM keys ORDER BY id")?;
            let rows = statement.query_map([], |row| {
                Ok(KeyRow {
                    id: row.get(0)?,
                    about: row.get(1)?,
                    secret_hash: row.get(2)?,
                    revoked_us: row.get(3)?,
                })
            })?;
            rows.collect()
        })
        .await
    }
}
