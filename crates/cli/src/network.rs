//! The network of a microVM that the command starts itself.

use std::net::{IpAddr, SocketAddr};

use firelane_network::policy::Policy;
use firelane_network::{Network, NetworkError, Options, Report};
use firelane_vmm::driver::NetworkTap;

use crate::failure::Failure;

/// Resolvers to ask in the place of the host's: addresses, with or without a port, separated by commas.
const RESOLVERS: &str = "FIRELANE_RESOLVERS";

/// A network that is open, until it is closed or dropped.
pub(crate) struct OpenNetwork(Network);

impl OpenNetwork {
    /// Opens one for the microVM of this name.
    pub(crate) async fn open(id: &str, policy: Policy) -> Result<Self, Failure> {
        let options = Options {
            fence: None,
            upstream: resolvers()?,
            least_pin: None,
        };
        let id = id.to_owned();
        let opening = tokio::task::spawn_blocking(move || Network::new(&id, &policy, options));
        let network = opening.await.map_err(Failure::platform)?;
        Ok(Self(network.map_err(refused)?))
    }

    /// The tap, for the VMM.
    pub(crate) fn tap(&self) -> Result<NetworkTap, Failure> {
        Ok(NetworkTap::new(self.0.tap().map_err(Failure::platform)?))
    }

    /// Removes it, and tells what happened in it. What resists is left to the next one's sweep.
    pub(crate) async fn close(self) -> Option<Report> {
        let closing = tokio::task::spawn_blocking(move || {
            let report = self.0.report();
            let report =
                report.inspect_err(|error| tracing::warn!(%error, "no report of the network"));
            if let Err(error) = self.0.close() {
                tracing::warn!(%error, "not everything of the network could be removed");
            }
            report.ok()
        });
        match closing.await {
            Ok(report) => report,
            Err(error) => {
                tracing::warn!(%error, "the network was not closed");
                None
            }
        }
    }
}

fn refused(error: NetworkError) -> Failure {
    let remedy = error.remedy();
    let failure =
        Failure::platform(anyhow::Error::from(error).context("the sandbox gets no network"));
    match remedy {
        Some(remedy) => failure.with_remedy(remedy),
        None => failure,
    }
}

fn resolvers() -> Result<Option<Vec<SocketAddr>>, Failure> {
    let Ok(text) = std::env::var(RESOLVERS) else {
        return Ok(None);
    };
    let one = |text: &str| {
        let address = text.trim();
        let plain = || {
            address
                .parse::<IpAddr>()
                .map(|address| (address, 53).into())
        };
        address.parse().or_else(|_| plain())
    };
    let all: Result<Vec<SocketAddr>, _> = text.split(',').map(one).collect();
    match all {
        Ok(all) => Ok(Some(all)),
        Err(_) => Err(Failure::usage(format!(
            "{RESOLVERS} is {text:?}: give addresses, separated by commas"
        ))),
    }
}
