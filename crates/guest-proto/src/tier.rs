//! The tiers of what programs may ask of the guest's kernel.

use core::fmt;
use core::str::FromStr;

use alloc::string::{String, ToString};
use serde::{Deserialize, Serialize};

/// How much of the guest's kernel is open to programs: which of its system calls they may make. Each tier
/// allows what the one before it does, and more; `docs/seccomp.md` has the lists.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// To compute, and to read and write files. No other processes, no sockets.
    Essential,
    /// Processes, pipes, terminals, and waiting for many descriptors.
    Minimal,
    /// What programs use that talk to nobody outside: Unix sockets, shared memory, watches of files.
    #[default]
    Standard,
    /// Sockets of IPv4 and IPv6.
    Network,
    /// All but what serves attacks on the kernel only, and what would lead to the host.
    Unrestricted,
}

impl Tier {
    /// Every tier, the strictest first.
    pub const ALL: [Tier; 5] = [
        Tier::Essential,
        Tier::Minimal,
        Tier::Standard,
        Tier::Network,
        Tier::Unrestricted,
    ];

    /// The name used in definitions, on the command line and in messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Tier::Essential => "essential",
            Tier::Minimal => "minimal",
            Tier::Standard => "standard",
            Tier::Network => "network",
            Tier::Unrestricted => "unrestricted",
        }
    }

    /// Whether a program may start processes.
    #[must_use]
    pub const fn has_processes(self) -> bool {
        !matches!(self, Tier::Essential)
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that no tier has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown seccomp tier '{name}' (known: essential, minimal, standard, network, unrestricted)"
)]
pub struct UnknownTier {
    /// The name as given.
    pub name: String,
}

impl FromStr for Tier {
    type Err = UnknownTier;

    fn from_str(name: &str) -> Result<Tier, UnknownTier> {
        let known = Tier::ALL.into_iter().find(|tier| tier.name() == name);
        known.ok_or_else(|| UnknownTier {
            name: name.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_and_others_are_refused_with_those_that_are_known() {
        for tier in Tier::ALL {
            assert_eq!(tier.name().parse(), Ok(tier));
        }
        let error = "Standard".parse::<Tier>().unwrap_err().to_string();
        for name in Tier::ALL.map(Tier::name) {
            assert!(error.contains(name), "{error}");
        }
    }
}
