//! Prices that are known without asking: AWS tells them in a service of its own, which needs rights
//! of its own.

use crate::provider::Quote;

/// When the table was made.
const MADE: &str = "table of 2026-11, rounded; without disk and traffic";
/// Where they hold.
const REGION: &str = "us-east-1";
/// On demand, Linux, in thousandths of a US dollar for one hour.
const TABLE: &[(&str, u64)] = &[("c5.metal", 4_080), ("c8i.2xlarge", 400)];

/// None: not in the table.
pub(super) fn quote(region: &str, kind: &str) -> Option<Quote> {
    let known = TABLE.iter().find(|(name, _)| *name == kind);
    let (_, milli_usd_per_hour) = known.filter(|_| region == REGION)?;
    Some(Quote {
        milli_usd_per_hour: *milli_usd_per_hour,
        source: MADE.to_owned(),
    })
}
