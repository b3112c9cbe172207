//! The network of one sandbox: policy, fence, resolver.
//!
//! - [`policy`]: what a template's `[network]` allows, as pure values;
//! - [`plan`]: the addresses, which are the same in every sandbox;
//! - [`Network`]: a namespace with a tap for the VMM, its way out, the fence on the tap ([`FenceKind`]) and
//!   the resolver at the gateway; all of it gone with its owner.
//!
//! It knows no VMM. What it guarantees, and what it does not, is told in `docs/network.md`.

mod fence;
mod link;
pub mod plan;
pub mod policy;
mod program;
mod resolver;

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::{fmt, io};

use serde::Serialize;

pub use fence::{Count, FenceError, FenceKind, MAX_LISTED, MAX_PINNED, Meeting, Tally};
pub use link::{LinkError, sweep};
use policy::{Blocked, Policy, TableError};
pub use program::ProgramError;
pub use resolver::Lookup;
use resolver::{Resolver, SharedFence};

/// What is not in a policy.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The kind of fence; without one, the first that the kernel takes.
    pub fence: Option<FenceKind>,
    /// Resolvers to ask, in the place of the host's.
    pub upstream: Option<Vec<SocketAddr>>,
    /// Seconds that an address of a name stays pinned at least; without them, a minute.
    pub least_pin: Option<u32>,
}

/// Why a sandbox has no network. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The devices.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The fence.
    #[error(transparent)]
    Fence(#[from] FenceError),
    /// The rules, with the host's addresses among what is blocked.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The resolver.
    #[error("cannot start the sandbox's resolver")]
    Resolver(#[source] io::Error),
}

impl NetworkError {
    /// What the user can do about it, where that is known.
    #[must_use]
    pub fn remedy(&self) -> Option<&'static str> {
        match self {
            NetworkError::Link(error) => error.remedy(),
            NetworkError::Fence(FenceError::Neither { .. }) => Some(
                "the kernel needs eBPF with the clsact qdisc, or nftables with the netdev family",
            ),
            _ => None,
        }
    }
}

/// What happened in a sandbox's network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The kind of fence.
    pub fence: &'static str,
    /// Counters, flows and refusals.
    #[serde(flatten)]
    pub tally: Tally,
    /// Names that were asked for.
    pub lookups: Vec<Lookup>,
}

/// The network of one sandbox. Dropped, it is removed; killed with its owner, the next [`sweep`] removes
/// what the kernel has not.
pub struct Network {
    // Before the link: the resolver's threads end first.
    resolver: Resolver,
    fence: SharedFence,
    link: link::Link,
}

impl Network {
    /// Makes it, with the namespace of the calling thread as the host's. The guest sees the addresses of
    /// [`plan`]. `id` is unique on the host.
    ///
    /// # Errors
    /// [`NetworkError`].
    pub fn new(id: &str, policy: &Policy, options: Options) -> Result<Self, NetworkError> {
        sweep()?;
        let host = link::host_addresses()?;
        let own: Vec<Blocked> = host.iter().copied().map(Blocked::host).collect();
        let table = policy.table(&own)?;
        let link = link::Link::new(id)?;
        let fence = fence::raise(&link.inner, policy, &table, options.fence)?;
        let fence: SharedFence = Arc::new(Mutex::new(fence));
        link.connect(policy, &host)?;
        let resolver = Resolver::start(&link.inner, policy, &table, options, &fence)
            .map_err(NetworkError::Resolver)?;
        Ok(Self {
            resolver,
            fence,
            link,
        })
    }

    /// The tap, for a VMM: frames without a header of the kernel's.
    ///
    /// # Errors
    /// If there are too many descriptors.
    pub fn tap(&self) -> io::Result<OwnedFd> {
        self.link.tap.handle()
    }

    /// The name of its device and its table on the host.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.link.name
    }

    /// What has happened in it so far.
    ///
    /// # Errors
    /// [`FenceError`] if the kernel does not tell.
    pub fn report(&self) -> Result<Report, FenceError> {
        let fence = self.fence.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Report {
            fence: fence.kind().name(),
            tally: fence.tally()?,
            lookups: self.resolver.lookups(),
        })
    }

    /// Removes it from the host. A VMM that still has the tap is cut off.
    ///
    /// # Errors
    /// [`LinkError`] if something resists; the next [`sweep`] tries again.
    pub fn close(mut self) -> Result<(), LinkError> {
        self.link.remove()
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network")
            .field("name", &self.name())
            .finish_non_exhaustive()
    }
}
