//! What was used, by day, tenant and API key.

use rusqlite::{Connection, params};

use super::{Db, DbError};

/// What one run used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// Day of its end, counted from 1970.
    pub day: i64,
    /// Whose run.
    pub tenant: String,
    /// The API key; empty for none.
    pub key: String,
    /// Processor time.
    pub cpu_us: i64,
    /// Time.
    pub wall_us: i64,
    /// What it wrote.
    pub output_bytes: i64,
}

/// What one key used on one day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageRow {
    /// The sums.
    pub used: Used,
    /// How many runs.
    pub runs: i64,
}

pub(super) fn add(connection: &Connection, used: &Used) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO usage (day, tenant, key, runs, cpu_us, wall_us, output_bytes)
         VALUES (?1, ?2, ?3, 1, ?4, ?5, ?6)
         ON CONFLICT (tenant, day, key) DO UPDATE SET
            runs = runs + 1,
            cpu_us = cpu_us + excluded.cpu_us,
            wall_us = wall_us + excluded.wall_us,
            output_bytes = output_bytes + excluded.output_bytes",
    )?;
    statement.execute(params![
        used.day,
        used.tenant,
        used.key,
        used.cpu_us,
        used.wall_us,
        used.output_bytes,
    ])?;
    Ok(())
}

impl Db {
    /// What a tenant used from one day to another, both included; of every tenant, if none is named.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn usage(
        &self,
        tenant: Option<String>,
        first: i64,
        last: i64,
    ) -> Result<Vec<UsageRow>, DbError> {
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT day, tenant, key, cpu_us, wall_us, output_bytes, runs FROM usage
                 WHERE (?1 IS NULL OR tenant = ?1) AND day BETWEEN ?2 AND ?3
                 ORDER BY day, tenant, key",
            )?;
            let rows = statement.query_map((tenant, first, last), |row| {
                Ok(UsageRow {
                    used: Used {
                        day: row.get(0)?,
                        tenant: row.get(1)?,
                        key: row.get(2)?,
                        cpu_us: row.get(3)?,
                        wall_us: row.get(4)?,
                        output_bytes: row.get(5)?,
                    },
                    runs: row.get(6)?,
                })
            })?;
            rows.collect()
        })
        .await
    }
}
