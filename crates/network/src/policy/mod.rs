//! What a sandbox may reach: pure values. Nothing is allowed that no rule allows.
//!
//! ```toml
//! [network]
//! allow = ["pypi.example:443", "*.hosted.example:443", "203.0.113.0/24:8000-8100", "udp:192.0.2.7:123"]
//! bytes_per_second = 12500000     # each way, 12.5 MB unless given; 65536 at least
//! flows_per_second = 100          # new ones, 100 unless given
//! flows_at_once = 1024            # 1024 unless given; 64 to 65536
//! ```
//!
//! A flow is what has the same protocol, addresses and ports: a TCP connection, or an exchange of UDP. What is
//! [blocked](Blocked) is reached by a rule only that names it: `0.0.0.0/0:443` reaches no private network,
//! `10.1.0.0/16:443` does. Names never lead there.

mod blocked;
mod prefix;
mod rule;
mod table;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use blocked::{Blocked, Opened};
pub use prefix::Prefix;
pub(crate) use rule::is_name;
pub use rule::{Place, Protocol, Rule, RuleError, Span};
pub use table::{Grant, MAX_SPANS, Table, TableError, Verdict};

/// Most rules.
pub const MAX_RULES: usize = 64;

/// The `[network]` table of a template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Rules; see [`Rule`].
    #[serde(default)]
    pub allow: Vec<String>,
    /// Bytes a second, each way.
    #[serde(default = "bytes_per_second")]
    pub bytes_per_second: u64,
    /// New flows a second.
    #[serde(default = "flows_per_second")]
    pub flows_per_second: u64,
    /// Flows that are remembered, and so answered, at once.
    #[serde(default = "flows_at_once")]
    pub flows_at_once: u32,
}

fn bytes_per_second() -> u64 {
    12_500_000
}

fn flows_per_second() -> u64 {
    100
}

fn flows_at_once() -> u32 {
    1024
}

/// Why a policy cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// A rule that is none.
    #[error("rule {text:?} {reason}")]
    Rule {
        /// The rule.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// More rules than there may be.
    #[error("{count} rules are more than {MAX_RULES}: name ranges, or names with *.")]
    TooMany {
        /// How many there are.
        count: usize,
    },
    /// A limit that cannot be.
    #[error("{field} {value} is not from {least} to {most}")]
    Limit {
        /// Which one.
        field: &'static str,
        /// What it is.
        value: u64,
        /// The least it may be.
        least: u64,
        /// The most it may be.
        most: u64,
    },
    /// Rules that together are too much for one address.
    #[error(transparent)]
    Table(#[from] TableError),
}

/// What a sandbox may reach, and how much of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// In the order of the definition.
    pub rules: Vec<Rule>,
    /// Bytes a second, each way.
    pub bytes_per_second: u64,
    /// New flows a second.
    pub flows_per_second: u64,
    /// Flows at once.
    pub flows_at_once: u32,
}

impl Policy {
    /// Reads the settings of a template.
    ///
    /// # Errors
    /// [`PolicyError`] naming the rule or the limit.
    pub fn new(settings: &Settings) -> Result<Self, PolicyError> {
        let count = settings.allow.len();
        if count > MAX_RULES {
            return Err(PolicyError::TooMany { count });
        }
        let limit = |field, value, least, most| match (least..=most).contains(&value) {
            true => Ok(()),
            false => Err(PolicyError::Limit {
                field,
                value,
                least,
                most,
            }),
        };
        limit(
            "bytes_per_second",
            settings.bytes_per_second,
            1 << 16,
            10_000_000_000,
        )?;
        limit("flows_per_second", settings.flows_per_second, 1, 100_000)?;
        limit("flows_at_once", settings.flows_at_once.into(), 64, 65_536)?;
        let rules = settings.allow.iter().map(|text| rule(text));
        let policy = Self {
            rules: rules.collect::<Result<_, _>>()?,
            bytes_per_second: settings.bytes_per_second,
            flows_per_second: settings.flows_per_second,
            flows_at_once: settings.flows_at_once,
        };
        policy.table(&[])?;
        Ok(policy)
    }

    /// What is decided by addresses, on a host with these ranges of its own.
    ///
    /// # Errors
    /// [`TableError`] if the rules for one address are too many.
    pub fn table(&self, host: &[Blocked]) -> Result<Table, TableError> {
        Table::new(&self.rules, host)
    }

    /// Whether any rule is for this name, in small letters and without a dot at its end.
    #[must_use]
    pub fn names(&self, name: &str) -> bool {
        self.rules.iter().any(|rule| rule.place.names(name))
    }

    /// The rules, by number, that are for this name.
    pub fn rules_of(&self, name: &str) -> impl Iterator<Item = (usize, &Rule)> {
        let rules = self.rules.iter().enumerate();
        rules.filter(move |(_, rule)| rule.place.names(name))
    }
}

fn rule(text: &str) -> Result<Rule, PolicyError> {
    let refused = |reason| PolicyError::Rule {
        text: text.to_owned(),
        reason,
    };
    let rule = Rule::parse(text).map_err(|error| refused(error.reason))?;
    if let Place::Addresses(prefix) = rule.place {
        let closed =
            |range: &&Blocked| range.prefix.contains(prefix) && !blocked::opens(range, prefix);
        if let Some(range) = blocked::RANGES.iter().find(closed) {
            let what = range.what;
            return Err(refused(format!(
                "names addresses that no rule opens: they are {what}"
            )));
        }
    }
    Ok(rule)
}
