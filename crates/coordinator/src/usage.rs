//! What was used.

use std::sync::Arc;

use firelane_store::db::MAX_USAGE_DAYS;
use firelane_wire::bus::LookUsage;
use firelane_wire::problem::{Code, Problem};
use firelane_wire::usage::{Usage, UsageDay};
use jiff::civil::Date;

use crate::records::{problem, today};
use crate::service::Coordinator;

/// Day 0 of the records.
const EPOCH: Date = Date::constant(1970, 1, 1);

impl Coordinator {
    /// What a tenant used, by day and key.
    pub(crate) async fn usage(self: Arc<Self>, call: LookUsage) -> Result<Usage, Problem> {
        let today = today();
        let first = call.query.from.as_deref().map(day).transpose()?;
        let last = call.query.to.as_deref().map(day).transpose()?;
        let (first, last) = (first.unwrap_or(today), last.unwrap_or(today));
        if last < first || last - first >= MAX_USAGE_DAYS {
            let cause = format!("from and to are not 1 to {MAX_USAGE_DAYS} days in order");
            return Err(Problem::new(Code::Invalid, cause));
        }
        let rows = self
            .db
            .read(move |rx| rx.usage(&call.tenant, None, first, last));
        let rows = rows.await.map_err(|error| problem(&error))?;
        let seconds = |us: u64| us as f64 / 1e6;
        let days = rows.into_iter().map(|row| UsageDay {
            day: date(row.day),
            key: row.key_id,
            runs: row.usage.runs,
            cpu_seconds: seconds(row.usage.cpu_us),
            wall_seconds: seconds(row.usage.wall_us),
            output_bytes: row.usage.output_bytes,
        });
        Ok(Usage {
            days: days.collect(),
        })
    }
}

fn day(text: &str) -> Result<i64, Problem> {
    let date: Date = text.parse().map_err(|_| {
        Problem::new(
            Code::Invalid,
            format!("'{text}' is not a day such as 2026-11-30"),
        )
    })?;
    let since = EPOCH.until(date).map(|span| i64::from(span.get_days()));
    since.map_err(|error| Problem::new(Code::Invalid, error.to_string()))
}

fn date(day: i64) -> String {
    let since = jiff::Span::new().try_days(day);
    let date = since.and_then(|span| EPOCH.checked_add(span));
    date.map_or_else(|_| day.to_string(), |date| date.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_counted_from_1970() {
        let check = |text: &str, number: i64| {
            assert_eq!(day(text).ok(), Some(number));
            assert_eq!(date(number), text);
        };
        check("1970-01-01", 0);
        check("2026-11-22", 20_779);
        assert!(day("22.11.2026").is_err());
    }
}
