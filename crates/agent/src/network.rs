//! The networks of clones: each is opened for one clone, before there is a VMM that could send anything, and
//! closed after it.

use std::env;
use std::io;
use std::net::{AddrParseError, IpAddr, SocketAddr};
use std::sync::Arc;

use firelane_network::policy::{Policy, PolicyError, Settings};
use firelane_network::{Network, NetworkError, Options, Report};
use firelane_vmm::driver::NetworkDevice;
use firelane_wire::network::{NetworkLookup, NetworkMeeting, NetworkSeen};
use tokio::task::JoinError;

use crate::workshop::new_id;

/// Resolvers to ask in the place of the host's: addresses, with or without a port, separated by commas.
const RESOLVERS: &str = "FIRELANE_RESOLVERS";

/// Why a guest has no network. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It could not be made.
    #[error("the sandbox gets no network")]
    Network(#[from] NetworkError),
    /// The tap could not be handed over.
    #[error("the sandbox's tap cannot be handed over")]
    Tap(#[source] io::Error),
    /// `FIRELANE_RESOLVERS` cannot be understood.
    #[error("{RESOLVERS} is {value:?}: give addresses, separated by commas")]
    Resolvers {
        /// What it says.
        value: String,
        /// What is wrong with it.
        #[source]
        source: AddrParseError,
    },
    /// A task of ours failed.
    #[error("waiting for the network failed")]
    Task(#[from] JoinError),
}

impl OpenError {
    /// What the user can do about it, where that is known.
    #[must_use]
    pub fn remedy(&self) -> Option<&'static str> {
        match self {
            OpenError::Network(error) => error.remedy(),
            _ => None,
        }
    }
}

/// What the guests of one template may reach.
#[derive(Clone, Debug)]
pub struct Reach(Policy);

impl Reach {
    /// What a template's `[network]` says.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(settings: &Settings) -> Result<Reach, PolicyError> {
        Policy::new(settings).map(Reach)
    }

    /// Opens a network for one guest, under a name that none had before. The fence stands when this returns,
    /// and the guest's device can be put on it.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(&self) -> Result<GuestNetwork, OpenError> {
        let options = Options {
            fence: None,
            upstream: resolvers()?,
            least_pin: None,
        };
        let policy = self.0.clone();
        let opening = move || Network::new(&new_id(), &policy, options);
        let network = tokio::task::spawn_blocking(opening).await??;
        Ok(GuestNetwork(Arc::new(network)))
    }
}

/// The network of one guest, until it is closed. Dropped, it is removed while the caller waits.
#[derive(Debug)]
pub struct GuestNetwork(Arc<Network>);

impl GuestNetwork {
    /// The guest's device, on the tap.
    ///
    /// # Errors
    /// [`OpenError::Tap`].
    pub fn device(&self) -> Result<NetworkDevice, OpenError> {
        let tap = self.0.tap().map_err(OpenError::Tap)?;
        Ok(NetworkDevice::on(tap))
    }

    /// What has happened in it so far, if the kernel tells.
    pub async fn look(&self) -> Option<NetworkSeen> {
        let network = Arc::clone(&self.0);
        let looking = tokio::task::spawn_blocking(move || seen(&network));
        looking.await.unwrap_or_else(|error| {
            tracing::error!(%error, "the network was not looked at");
            None
        })
    }

    /// Removes it, and tells what happened in it. What resists is left to the next one's sweep.
    pub async fn close(self) -> Option<NetworkSeen> {
        let closing = tokio::task::spawn_blocking(move || {
            let seen = seen(&self.0);
            // Else somebody who looks still has it, and then it is removed.
            if let Some(network) = Arc::into_inner(self.0)
                && let Err(error) = network.close()
            {
                tracing::warn!(%error, "not everything of the network could be removed");
            }
            seen
        });
        closing.await.unwrap_or_else(|error| {
            tracing::error!(%error, "the network was not closed");
            None
        })
    }
}

/// Closes a network, if there is one, and tells what happened in it.
pub async fn close(network: Option<GuestNetwork>) -> Option<NetworkSeen> {
    network?.close().await
}

fn seen(network: &Network) -> Option<NetworkSeen> {
    let report = network.report();
    let report = report.inspect_err(|error| tracing::warn!(%error, "no report of the network"));
    report.ok().map(told)
}

fn told(report: Report) -> NetworkSeen {
    let Report {
        fence,
        tally,
        lookups,
    } = report;
    let counts = tally.counts.into_iter();
    let meetings = tally.meetings.into_iter().map(|meeting| NetworkMeeting {
        count: meeting.count.name().into(),
        address: meeting.address.to_string(),
        port: meeting.port,
        protocol: meeting.protocol,
        times: meeting.times,
    });
    let lookups = lookups.into_iter().map(|lookup| NetworkLookup {
        name: lookup.name,
        outcome: lookup.outcome.into(),
        times: lookup.times,
    });
    NetworkSeen {
        fence: fence.into(),
        counts: counts
            .map(|(count, times)| (count.name().into(), times))
            .collect(),
        meetings: meetings.collect(),
        lookups: lookups.collect(),
        unlisted: 0,
    }
}

fn resolvers() -> Result<Option<Vec<SocketAddr>>, OpenError> {
    let Ok(value) = env::var(RESOLVERS) else {
        return Ok(None);
    };
    match addresses(&value) {
        Ok(all) => Ok(Some(all)),
        Err(source) => Err(OpenError::Resolvers { value, source }),
    }
}

fn addresses(text: &str) -> Result<Vec<SocketAddr>, AddrParseError> {
    let one = |text: &str| {
        let address = text.trim();
        let plain = || {
            address
                .parse::<IpAddr>()
                .map(|address| (address, 53).into())
        };
        address.parse().or_else(|_| plain())
    };
    text.split(',').map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_are_addresses_with_or_without_a_port() {
        let all = addresses("192.0.2.1, 192.0.2.2:5353").unwrap();
        assert_eq!(
            all,
            [([192, 0, 2, 1], 53).into(), ([192, 0, 2, 2], 5353).into()]
        );
        for wrong in ["", "resolver.example", "192.0.2.1,"] {
            assert!(addresses(wrong).is_err(), "{wrong:?}");
        }
    }
}
