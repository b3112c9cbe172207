//! What tenants used, by key and day.

use rusqlite::{Row, params};

use super::access::{Reading, Writing};
use super::check;
use super::error::DbError;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// Longest range that is read at once, in days: a leap year.
pub const MAX_USAGE_DAYS: i64 = 366;

/// The day of a time, counted from 1970-01-01 in UTC.
#[must_use]
pub fn day_of(time_ms: i64) -> i64 {
    time_ms.div_euclid(DAY_MS)
}

/// An amount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Runs.
    pub runs: u64,
    /// Processor time in microseconds: a small run takes few milliseconds, and sums are to be right.
    pub cpu_us: u64,
    /// Time that runs took, in microseconds.
    pub wall_us: u64,
    /// Bytes that runs wrote.
    pub output_bytes: u64,
}

/// What was used with one key on one day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageOfDay {
    /// The key.
    pub key_id: String,
    /// The day, as [`day_of`] counts.
    pub day: i64,
    /// How much.
    pub usage: Usage,
}

impl Reading<'_> {
    /// What a tenant used, from one day to another, both included, by day and key; with one key, or all.
    pub fn usage(
        &self,
        tenant: &str,
        key_id: Option<&str>,
        first_day: i64,
        last_day: i64,
    ) -> Result<Vec<UsageOfDay>, DbError> {
        let days = last_day.saturating_sub(first_day).saturating_add(1);
        let size = usize::try_from(days).unwrap_or(0);
        check::size("a range of days", size, MAX_USAGE_DAYS as usize)?;
        let sql = "SELECT key_id, day, runs, cpu_us, wall_us, output_bytes FROM usage
                   WHERE tenant = ?1 AND (?2 IS NULL OR key_id = ?2) AND day BETWEEN ?3 AND ?4
                   ORDER BY day, key_id";
        self.many(sql, params![tenant, key_id, first_day, last_day], of_row)
    }

    /// What was used with each key on one day, of all tenants: for the start of a service.
    pub fn usage_of_day(&self, day: i64) -> Result<Vec<UsageOfDay>, DbError> {
        let sql = "SELECT key_id, day, runs, cpu_us, wall_us, output_bytes FROM usage
                   WHERE day = ?1 ORDER BY key_id";
        self.many(sql, [day], of_row)
    }
}

fn of_row(row: &Row<'_>) -> rusqlite::Result<UsageOfDay> {
    let usage = Usage {
        runs: row.get(2)?,
        cpu_us: row.get(3)?,
        wall_us: row.get(4)?,
        output_bytes: row.get(5)?,
    };
    Ok(UsageOfDay {
        key_id: row.get(0)?,
        day: row.get(1)?,
        usage,
    })
}

impl Writing<'_> {
    /// Adds to what was used with a key on a day; an empty one stands for none.
    pub fn add_usage(
        &self,
        tenant: &str,
        key_id: &str,
        day: i64,
        used: &Usage,
    ) -> Result<(), DbError> {
        check::tenant(tenant)?;
        if !key_id.is_empty() {
            check::id("key", key_id)?;
        }
        let sql = "INSERT INTO usage (tenant, key_id, day, runs, cpu_us, wall_us, output_bytes)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                   ON CONFLICT DO UPDATE SET runs = runs + excluded.runs, cpu_us = cpu_us + excluded.cpu_us,
                   wall_us = wall_us + excluded.wall_us, output_bytes = output_bytes + excluded.output_bytes";
        self.execute(
            sql,
            params![
                tenant,
                key_id,
                day,
                used.runs,
                used.cpu_us,
                used.wall_us,
                used.output_bytes
            ],
        )?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_begin_at_midnight_also_before_1970() {
        for (time_ms, day) in [
            (0, 0),
            (DAY_MS - 1, 0),
            (DAY_MS, 1),
            (-1, -1),
            (-DAY_MS, -1),
            (-DAY_MS - 1, -2),
        ] {
            assert_eq!(day_of(time_ms), day, "{time_ms}");
        }
    }
}
