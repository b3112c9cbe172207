//! Server types: which there are, and whether one does.

use super::answers::Kind;
use super::client::{Client, SERVER_TYPES};
use super::price;
use crate::error::{Class, CloudError};
use crate::machine::Spec;

/// What a lane needs at least if nobody names a type: processors, GiB of memory, GiB of disk.
const LEAST: (u32, f64, f64) = (4, 8.0, 50.0);
/// Most other types that are named.
const NAMED: usize = 6;
/// Providers whose machines have KVM, named where one is wanted here.
const WITH_KVM: &str = "aws, or existing (a dedicated server of Hetzner, for example)";

/// All of them: there are some dozens.
pub(super) async fn all(client: &Client) -> Result<Vec<Kind>, CloudError> {
    client.list(SERVER_TYPES, &[]).await
}

/// Why a type cannot be had in a location.
fn trouble(kind: &Kind, location: &str) -> Option<String> {
    let name = &kind.name;
    if kind.architecture != "x86" {
        return Some(format!(
            "{name} has no x86-64 processor, which Firelane needs"
        ));
    }
    if kind.deprecated == Some(true) {
        return Some(format!(
            "{name} is deprecated, and will not be sold any more"
        ));
    }
    let is_there = match &kind.locations {
        Some(locations) => {
            let at = locations.iter().find(|at| at.name == location);
            if let Some(deprecation) = at.and_then(|at| at.deprecation.as_ref()) {
                let end = &deprecation.unavailable_after;
                return Some(format!(
                    "{name} is deprecated in {location}, and not to be had after {end}"
                ));
            }
            if at.is_some_and(|at| at.available == Some(false)) {
                return Some(format!("{location} has no {name} left now"));
            }
            at.is_some()
        }
        None => price::hourly(kind, location).is_some(),
    };
    (!is_there).then(|| format!("{location} has no type {name}"))
}

/// Those that can be had in a location and are as large as this, the cheapest first.
fn fitting<'a>(kinds: &'a [Kind], location: &str, least: (u32, f64, f64)) -> Vec<&'a Kind> {
    let (cores, memory, disk) = least;
    let mut fitting: Vec<_> = kinds
        .iter()
        .filter(|kind| trouble(kind, location).is_none())
        .filter(|kind| kind.cores >= cores && kind.memory >= memory && kind.disk >= disk)
        .collect();
    fitting.sort_by_key(|kind| {
        let price = price::hourly(kind, location).unwrap_or(u64::MAX);
        (price, kind.name.clone())
    });
    fitting
}

/// What is got if nobody says: the cheapest that is large enough. Lines of types come and go, so none is
/// known here by name.
pub(super) fn default(kinds: &[Kind], location: &str) -> Result<String, CloudError> {
    let fitting = fitting(kinds, location, LEAST);
    fitting.first().map(|kind| kind.name.clone()).ok_or_else(|| {
        let (cores, memory, disk) = LEAST;
        let message = format!(
            "{location} has no type with {cores} processors, {memory} GiB of memory and {disk} GiB of disk"
        );
        SERVER_TYPES
            .error(Class::Invalid, message)
            .with_remedy("name one by --instance-type")
    })
}

/// The type of a lane; refused if it does not do.
pub(super) fn check<'a>(kinds: &'a [Kind], spec: &Spec) -> Result<&'a Kind, CloudError> {
    let (name, location) = (&spec.instance_type, &spec.region);
    let found = kinds.iter().find(|kind| kind.name == *name);
    let trouble = match found {
        None => Some(format!("there is no type {name:?}")),
        Some(kind) => trouble(kind, location),
    };
    let disk = f64::from(spec.disk_gib);
    let trouble = trouble.or_else(|| {
        let kind = found.filter(|kind| kind.disk < disk)?;
        let (has, wanted) = (kind.disk, spec.disk_gib);
        Some(format!(
            "the disk of {name} has {has} GiB, and {wanted} are wanted"
        ))
    });
    match (found, trouble) {
        (Some(kind), None) => Ok(kind),
        (_, trouble) => {
            let others: Vec<_> = fitting(kinds, location, (0, 0.0, disk))
                .into_iter()
                .take(NAMED)
                .map(|kind| kind.name.as_str())
                .collect();
            let remedy = if others.is_empty() {
                "take another location by --region, or a smaller disk by --disk-gib".to_owned()
            } else {
                format!("take one of {} by --instance-type", others.join(", "))
            };
            let error = SERVER_TYPES.error(Class::Invalid, trouble.unwrap_or_default());
            Err(error.with_remedy(remedy))
        }
    }
}

/// Refuses a lane that wants KVM: no type has it.
pub(super) fn check_kvm(spec: &Spec) -> Result<(), CloudError> {
    if !spec.kvm {
        return Ok(());
    }
    let message = "machines of Hetzner Cloud have no KVM";
    Err(SERVER_TYPES
        .error(Class::Invalid, message)
        .with_remedy(format!(
            "give up KVM by --no-kvm, or take a provider that has it: {WITH_KVM}"
        )))
}
