//! Instance types: whether one has KVM, and by which of two routes.

use super::client::{Client, DESCRIBE_INSTANCE_TYPES};
use super::params::Params;
use super::xml::Node;
use crate::error::{Class, CloudError};

/// What is got if nobody says: of the family that AWS lets nest first (c8i, m8i, r8i, since
/// 2026-02), eight processors and 16 GiB.
pub(super) const DEFAULT: &str = "c8i.2xlarge";

/// How a machine of a type gets KVM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kvm {
    /// Hardware without a hypervisor of AWS.
    Metal,
    /// `CpuOptions.NestedVirtualization`.
    Nested,
    /// Not at all.
    None,
}

/// What is to be known of a type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    /// Its way to KVM.
    pub(super) kvm: Kvm,
    /// Its processors, as quotas count them.
    pub(super) vcpus: u32,
}

/// Asks for a type, and refuses it if it does not do.
pub(super) async fn check(
    client: &Client,
    region: &str,
    name: &str,
    kvm: bool,
) -> Result<Kind, CloudError> {
    let action = DESCRIBE_INSTANCE_TYPES;
    let params = Params::new().list("InstanceType", [name]);
    let answer = client.call(region, action, &params).await?;
    let found = answer
        .items("instanceTypeSet")
        .find(|item| item.text("instanceType") == Some(name))
        .ok_or_else(|| {
            action
                .error(Class::Invalid, format!("{region} has no type {name}"))
                .with_remedy("take another region or type")
        })?;
    if !texts(found, "processorInfo/supportedArchitectures").any(|name| name == "x86_64") {
        let message = format!("{name} has no x86-64 processor, which Firelane needs");
        return Err(action
            .error(Class::Invalid, message)
            .with_remedy(format!("take {DEFAULT}, for example")));
    }
    let kind = Kind {
        kvm: route(found),
        vcpus: action
            .need(found, "vCpuInfo/defaultVCpus")?
            .parse()
            .map_err(|_| action.senseless("the number of processors is no number"))?,
    };
    if kvm && kind.kvm == Kvm::None {
        let message = format!("{name} has no KVM in {region}");
        return Err(action.error(Class::Invalid, message).with_remedy(format!(
            "take a type that reports nested virtualization ({DEFAULT} and others of c8i, m8i and r8i), \
             or bare metal (c5.metal, for example); or give up KVM by --no-kvm"
        )));
    }
    Ok(kind)
}

fn route(kind: &Node) -> Kvm {
    let nests =
        texts(kind, "processorInfo/supportedFeatures").any(|f| f == "nested-virtualization");
    if kind.text("bareMetal") == Some("true") {
        Kvm::Metal
    } else if nests {
        Kvm::Nested
    } else {
        Kvm::None
    }
}

fn texts<'a>(node: &'a Node, path: &str) -> impl Iterator<Item = &'a str> {
    node.items(path).map(Node::own_text)
}
