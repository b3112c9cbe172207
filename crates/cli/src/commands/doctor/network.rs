//! Whether sandboxes can have a network here: a fence of each kind is raised around nothing, and removed.

use firelane_agent::workshop::new_id;
use firelane_network::policy::Policy;
use firelane_network::{FenceKind, Network, NetworkError, Options};

use super::report::{Grade, Report};
use crate::failure::Failure;

/// The kinds, by the names that they have in the report.
const KINDS: [(&str, FenceKind); 2] = [
    ("network by eBPF", FenceKind::Ebpf),
    ("network by nftables", FenceKind::Nftables),
];

pub(super) async fn check(report: &mut Report) -> Result<(), Failure> {
    for (name, kind) in KINDS {
        if !rustix::process::geteuid().is_root() {
            report.add(name, Grade::Impossible, "only root makes networks", None);
            continue;
        }
        let trying = tokio::task::spawn_blocking(move || try_out(kind));
        match trying.await.map_err(Failure::platform)? {
            Ok(()) => report.add(name, Grade::Ok, "a fence was raised and removed", None),
            Err(error) => {
                let remedy = error.remedy();
                let detail = format!("{:#}", anyhow::Error::from(error));
                report.add(name, Grade::Warning, detail, remedy);
            }
        }
    }
    Ok(())
}

fn try_out(kind: FenceKind) -> Result<(), NetworkError> {
    let options = Options {
        fence: Some(kind),
        upstream: Some(Vec::new()),
        least_pin: None,
    };
    // Nothing is allowed, so nothing is asked of it either.
    let policy = Policy {
        rules: Vec::new(),
        bytes_per_second: 1 << 20,
        flows_per_second: 1,
        flows_at_once: 64,
    };
    let network = Network::new(&new_id(), &policy, options)?;
    Ok(network.close()?)
}
