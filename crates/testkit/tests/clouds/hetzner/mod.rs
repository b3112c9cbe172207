//! hetzner against a cloud of our own, which a description and a client that others wrote hold to what
//! Hetzner's is.

mod faults;
mod life;
mod others;
mod published;
mod refused;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use firelane_cloud::machine::{Handle, Spec};
use firelane_cloud::marker::Which;
use firelane_cloud::provider::Provider;
use firelane_cloud::registry::{self, OpenError, Settings};
use firelane_cloud::retry::{Policy, Retrying};
use firelane_model::bucket::Rate;
use firelane_model::lane::LaneId;
use firelane_model::time::Moment;
use firelane_testkit::clouds::hetzner::{HetznerCloud, TOKEN};

/// The provider with this token.
fn opened(cloud: &HetznerCloud, token: &str) -> Result<Box<dyn Provider>, OpenError> {
    let variables = [
        ("FIRELANE_HETZNER_ENDPOINT", cloud.url()),
        ("HCLOUD_TOKEN", token.to_owned()),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value));
    let settings = Settings {
        variables: BTreeMap::from(variables),
        state: "/nonexistent".into(),
    };
    registry::open("hetzner", &settings)
}

/// The provider.
fn hetzner(cloud: &HetznerCloud) -> Box<dyn Provider> {
    opened(cloud, TOKEN).expect("the settings are right")
}

/// The same, called again where that may help.
fn patient(cloud: &HetznerCloud) -> Retrying<Box<dyn Provider>> {
    const MANY: NonZeroU32 = NonZeroU32::new(10_000).expect("not zero");
    let policy = Policy {
        first: Duration::from_millis(5),
        most: Duration::from_millis(20),
        rate: Rate::per_second(MANY),
        burst: MANY,
        ..Policy::default()
    };
    Retrying::with_dice(hetzner(cloud), policy, fastrand::Rng::with_seed(1))
}

/// Gives one back, and waits until it is gone.
async fn give_back(provider: &impl Provider, handle: &Handle) {
    provider.delete(handle).await.expect("nothing goes wrong");
    while provider
        .get(handle)
        .await
        .expect("nothing goes wrong")
        .is_some()
    {}
}

/// Gives back what the provider itself finds; then nothing is left.
async fn clear(cloud: &HetznerCloud, provider: &impl Provider, which: &Which, what: &str) {
    let machines = provider.list(which).await.expect("nothing goes wrong");
    for machine in machines {
        give_back(provider, &machine.handle).await;
    }
    let swept = provider.sweep(which).await.expect("nothing goes wrong");
    assert_eq!(swept.left, [], "{what}");
    assert_eq!(cloud.counts(), (0, 0, 0), "{what}");
}

/// A lane without KVM.
fn spec(label: &str, lane: u128) -> Spec {
    Spec {
        label: label.parse().expect("a label"),
        lane: LaneId::from_bits(lane),
        owner: "tester".to_owned(),
        region: "fsn1".to_owned(),
        instance_type: "cx33".to_owned(),
        disk_gib: 50,
        kvm: false,
        user_data: "#cloud-config\n{}\n".to_owned(),
        ssh_key: format!("ssh-ed25519 AAAA{lane:032x} tester"),
        ssh_from: vec!["198.51.100.7/24".to_owned()],
        created: Moment::after_origin(Duration::from_secs(1_795_000_000)),
        expires: Moment::after_origin(Duration::from_secs(1_795_014_400)),
        extras: BTreeMap::new(),
    }
}
