//! What a lane's journal says.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Label, LaneId};
use crate::time::Moment;

/// Where a machine is to be found: enough to look at it and to give it back, for any process.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Handle {
    /// Name of the provider.
    pub provider: String,
    /// Region, in the provider's words.
    pub region: String,
    /// Id, in the provider's words.
    pub id: String,
}

impl fmt::Display for Handle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            provider,
            region,
            id,
        } = self;
        write!(formatter, "{provider}/{region}/{id}")
    }
}

/// What a lane was asked to be. `up` again with other terms is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    /// Name of the provider.
    pub provider: String,
    /// Region, in the provider's words.
    pub region: String,
    /// Type of the machine, in the provider's words.
    pub instance_type: String,
    /// Root disk in GiB.
    pub disk_gib: u32,
    /// Whether it has to have KVM.
    pub kvm: bool,
    /// What only the provider knows.
    pub extras: BTreeMap<String, String>,
    /// How long it may live, in seconds. None, here and below: its journal does not tell.
    #[serde(default)]
    pub ttl_s: Option<u64>,
    /// Keys that may log in beside its own.
    #[serde(default)]
    pub ssh_keys: Option<Vec<String>>,
    /// The Firecracker that it downloads, as `URL#sha256=HEX`; empty for none.
    #[serde(default)]
    pub firecracker: Option<String>,
}

/// A term that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Which term.
    pub name: String,
    /// What the lane has.
    pub has: String,
    /// What is asked for.
    pub asked: String,
}

impl Terms {
    /// In what `asked` differs from these.
    pub fn differences(&self, asked: &Terms) -> Vec<Difference> {
        let mut differences = Vec::new();
        let mut compare = |name: &str, has: &str, asked: &str| {
            if has != asked {
                differences.push(Difference {
                    name: name.to_owned(),
                    has: has.to_owned(),
                    asked: asked.to_owned(),
                });
            }
        };
        compare("provider", &self.provider, &asked.provider);
        compare("region", &self.region, &asked.region);
        compare("instance type", &self.instance_type, &asked.instance_type);
        compare(
            "disk GiB",
            &self.disk_gib.to_string(),
            &asked.disk_gib.to_string(),
        );
        compare("KVM", &self.kvm.to_string(), &asked.kvm.to_string());
        let names = self.extras.keys().chain(asked.extras.keys());
        for name in names.collect::<std::collections::BTreeSet<_>>() {
            let of = |terms: &Terms| terms.extras.get(name).cloned().unwrap_or_default();
            compare(name, &of(self), &of(asked));
        }
        let told = |text: Option<String>| text.unwrap_or_else(|| "not known".to_owned());
        let ttl = |terms: &Terms| told(terms.ttl_s.map(time));
        compare("time to live", &ttl(self), &ttl(asked));
        let keys = |terms: &Terms| told(terms.ssh_keys.as_ref().map(|keys| keys.join(", ")));
        compare("SSH key", &keys(self), &keys(asked));
        let firecracker = |terms: &Terms| told(terms.firecracker.clone());
        compare("Firecracker", &firecracker(self), &firecracker(asked));
        differences
    }
}

/// Seconds as `--ttl` has them, or as they are.
fn time(seconds: u64) -> String {
    match seconds {
        whole if whole % 3600 == 0 => format!("{}h", whole / 3600),
        whole if whole % 60 == 0 => format!("{}m", whole / 60),
        odd => format!("{odd}s"),
    }
}

/// What is done to get from one stage to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Ask the provider for the machine, until it runs and has an address.
    Create,
    /// Log in.
    Reach,
    /// Wait until cloud-init has prepared it, and look at what it says.
    Prepare,
    /// Bring the programs there.
    Sync,
    /// Install and start the services.
    Deploy,
    /// Show that they work.
    Verify,
    /// Give everything back.
    Retire,
}

impl Step {
    /// All but [`Step::Retire`], in order.
    pub const FORWARD: [Self; 6] = [
        Self::Create,
        Self::Reach,
        Self::Prepare,
        Self::Sync,
        Self::Deploy,
        Self::Verify,
    ];
}

impl fmt::Display for Step {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Create => "create",
            Self::Reach => "reach",
            Self::Prepare => "prepare",
            Self::Sync => "sync",
            Self::Deploy => "deploy",
            Self::Verify => "verify",
            Self::Retire => "retire",
        })
    }
}

/// One entry of a journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case", deny_unknown_fields)]
pub enum Record {
    /// The first: what is wanted.
    Planned {
        /// The lane.
        lane: LaneId,
        /// Its name.
        label: Label,
        /// Who owns it.
        owner: String,
        /// What it is to be.
        terms: Terms,
        /// When anybody may remove it, since the Unix epoch.
        expires: Moment,
        /// What it costs, in thousandths of a US dollar for one hour. None: not known.
        milli_usd_per_hour: Option<u64>,
    },
    /// A step is about to be done. It may have been begun before.
    Begun {
        /// Which.
        step: Step,
    },
    /// The provider made the machine, or it was found again.
    Made {
        /// Where it is.
        handle: Handle,
    },
    /// The machine has an address: a new one, or another one than before.
    Addressed {
        /// Name or address.
        address: String,
        /// Port of its SSH server.
        port: u16,
    },
    /// A step was done.
    Done {
        /// Which.
        step: Step,
    },
    /// A step was not done.
    Failed {
        /// Which.
        step: Step,
        /// Why.
        cause: String,
    },
}
