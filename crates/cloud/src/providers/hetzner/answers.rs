//! What the API answers, as far as it is of use here. Fields are those of the API reference.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

/// One page of a list.
pub(super) struct Page<T> {
    pub(super) things: Vec<T>,
    /// Number of the next one.
    pub(super) next: Option<u64>,
}

/// Something that there are lists of.
pub(super) trait Listed: DeserializeOwned {
    /// Name of the list in an answer.
    const LIST: &'static str;
}

#[derive(Deserialize)]
struct Meta {
    pagination: Pagination,
}

#[derive(Deserialize)]
struct Pagination {
    next_page: Option<u64>,
}

impl<'de, T: Listed> Deserialize<'de> for Page<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        let mut fields = BTreeMap::<String, serde_json::Value>::deserialize(deserializer)?;
        let mut take = |name: &'static str| {
            let field = fields.remove(name);
            field.ok_or_else(|| D::Error::missing_field(name))
        };
        let things = serde_json::from_value(take(T::LIST)?).map_err(D::Error::custom)?;
        let meta: Meta = serde_json::from_value(take("meta")?).map_err(D::Error::custom)?;
        let next = meta.pagination.next_page;
        Ok(Page { things, next })
    }
}

macro_rules! listed {
    ($($thing:ty => $list:literal),* $(,)?) => {
        $(impl Listed for $thing {
            const LIST: &'static str = $list;
        })*
    };
}

listed! {
    Location => "locations",
    Kind => "server_types",
    Image => "images",
    Server => "servers",
    Firewall => "firewalls",
    Key => "ssh_keys",
}

/// Where servers are.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Location {
    pub(super) name: String,
}

/// A server type.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Kind {
    pub(super) name: String,
    /// `x86` or `arm`.
    pub(super) architecture: String,
    pub(super) cores: u32,
    /// In GiB.
    pub(super) memory: f64,
    /// In GiB.
    pub(super) disk: f64,
    /// Everywhere.
    pub(super) deprecated: Option<bool>,
    /// Where it can be had, if the API tells.
    pub(super) locations: Option<Vec<AtLocation>>,
    pub(super) prices: Vec<Price>,
}

/// A type in one location.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct AtLocation {
    pub(super) name: String,
    pub(super) deprecation: Option<Deprecation>,
    /// There are some left now. None: the API does not tell, as it did not before 2026.
    pub(super) available: Option<bool>,
}

/// Since when, and until when.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Deprecation {
    pub(super) unavailable_after: String,
}

/// What a thing costs in one location.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Price {
    pub(super) location: String,
    pub(super) price_hourly: Amount,
}

/// In the currency of the project.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Amount {
    /// With value-added tax.
    pub(super) gross: String,
}

/// Answer of `GET /pricing`.
#[derive(Deserialize)]
pub(super) struct PricingAnswer {
    pub(super) pricing: Pricing,
}

#[derive(Deserialize)]
pub(super) struct Pricing {
    /// For example `EUR`.
    pub(super) currency: String,
    pub(super) primary_ips: Vec<AddressPrice>,
}

/// What a public address costs.
#[derive(Deserialize)]
pub(super) struct AddressPrice {
    /// `ipv4` or `ipv6`.
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) prices: Vec<Price>,
}

/// An image.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Image {
    pub(super) id: u64,
    pub(super) name: Option<String>,
    pub(super) architecture: String,
    /// `available` if it can be used.
    pub(super) status: String,
    /// `system` for those of Hetzner.
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) description: String,
}

/// A server.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Server {
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) status: String,
    /// An action is at work on it.
    pub(super) locked: bool,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) location: Location,
    pub(super) server_type: Named,
    pub(super) public_net: PublicNet,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Named {
    pub(super) name: String,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct PublicNet {
    pub(super) ipv4: Option<Address>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Address {
    pub(super) ip: String,
}

#[derive(Deserialize)]
pub(super) struct ServerAnswer {
    pub(super) server: Server,
}

/// Answer of `POST /servers`.
#[derive(Deserialize)]
pub(super) struct Made {
    pub(super) server: Server,
    pub(super) action: Doing,
    pub(super) next_actions: Vec<Doing>,
}

/// Something that takes its time.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Doing {
    pub(super) id: u64,
    /// For example `create_server`.
    pub(super) command: String,
    /// `running`, `success` or `error`.
    pub(super) status: String,
    pub(super) error: Option<Failure>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Failure {
    pub(super) code: String,
    pub(super) message: String,
}

#[derive(Deserialize)]
pub(super) struct DoingAnswer {
    pub(super) action: Doing,
}

/// A firewall.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Firewall {
    pub(super) id: u64,
    pub(super) name: String,
    #[serde(default)]
    pub(super) labels: BTreeMap<String, String>,
}

#[derive(Deserialize)]
pub(super) struct FirewallAnswer {
    pub(super) firewall: Firewall,
}

/// A public key.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Key {
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) labels: BTreeMap<String, String>,
}

#[derive(Deserialize)]
pub(super) struct KeyAnswer {
    pub(super) ssh_key: Key,
}
