//! Idempotency keys of runs: the same key of the same tenant means the same run.

use rusqlite::params;

use crate::db::access::{Reading, Writing};
use crate::db::error::DbError;
use crate::db::{MAX_IDEMPOTENCY_KEY_BYTES, check};

/// What an idempotency key means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunKey {
    /// This run from now on: nobody had the key.
    New,
    /// The run with this id, which was asked for by the same request.
    Same(String),
    /// A run that was asked for by another request.
    Other,
}

impl Reading<'_> {
    /// What the key means for a request with this fingerprint; [`RunKey::New`] if nobody has it.
    pub fn run_key(
        &self,
        tenant: &str,
        key: &str,
        fingerprint: &[u8; 32],
    ) -> Result<RunKey, DbError> {
        let sql = "SELECT fingerprint, run FROM run_keys WHERE tenant = ?1 AND key = ?2";
        let found = self.one(sql, [tenant, key], |row| {
            Ok((row.get::<_, [u8; 32]>(0)?, row.get(1)?))
        })?;
        Ok(match found {
            Some((known, run)) if known == *fingerprint => RunKey::Same(run),
            Some(_) => RunKey::Other,
            None => RunKey::New,
        })
    }
}

impl Writing<'_> {
    /// Has the key mean this run, if it means none; with the hash of what is asked for. The run itself is
    /// inserted by the caller, in the same transaction.
    pub fn take_run_key(
        &self,
        tenant: &str,
        key: &str,
        fingerprint: &[u8; 32],
        run: &str,
        now: i64,
    ) -> Result<RunKey, DbError> {
        check::tenant(tenant)?;
        check::id("run", run)?;
        check::size("an idempotency key", key.len(), MAX_IDEMPOTENCY_KEY_BYTES)?;
        let known = self.run_key(tenant, key, fingerprint)?;
        if known == RunKey::New {
            let sql = "INSERT INTO run_keys (tenant, key, fingerprint, run, created)
                       VALUES (?1, ?2, ?3, ?4, ?5)";
            self.execute(sql, params![tenant, key, fingerprint, run, now])?;
        }
        Ok(known)
    }

    /// Forgets at most `most` keys that were taken before `older_than`. How many it forgot: when it is
    /// `most` there may be more.
    pub fn forget_run_keys(&self, older_than: i64, most: u32) -> Result<usize, DbError> {
        let sql = "DELETE FROM run_keys WHERE (tenant, key) IN
                   (SELECT tenant, key FROM run_keys WHERE created < ?1 ORDER BY created LIMIT ?2)";
        self.execute(sql, params![older_than, most])
    }
}
