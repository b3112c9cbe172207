//! The fence on a sandbox's tap: what passes, what is counted.
//!
//! There are two that do the same: programs in the kernel ([`ebpf`]), and rules of its packet filter
//! ([`nft`]). The first is tried first; where neither can be raised, there is no network. Both stand until
//! the tap is gone, whatever becomes of the process that raised them.

pub(crate) mod ebpf;
pub(crate) mod nft;
mod tally;

use std::net::Ipv4Addr;
use std::time::Duration;

use firelane_sys::network::Namespace;

use crate::policy::{Policy, Table};
use crate::program::ProgramError;

pub use tally::{Count, MAX_LISTED, Meeting, Tally};

/// Most addresses that are pinned at once.
pub const MAX_PINNED: usize = 4096;

/// A kind of fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FenceKind {
    /// Programs on the tap, in the kernel.
    Ebpf,
    /// Rules of the kernel's packet filter.
    Nftables,
}

impl FenceKind {
    /// Its name in output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            FenceKind::Ebpf => "ebpf",
            FenceKind::Nftables => "nftables",
        }
    }
}

/// Why a fence could not be raised, changed or read.
#[derive(Debug, thiserror::Error)]
pub enum FenceError {
    /// The kernel refuses the programs.
    #[error("the kernel refuses the fence's eBPF programs")]
    Ebpf(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The packet filter refuses the rules.
    #[error("the packet filter refuses the fence's rules")]
    Nftables(#[source] ProgramError),
    /// What it answered is not what was asked for.
    #[error("what the packet filter lists cannot be read: {reason}")]
    Listed {
        /// Why.
        reason: String,
    },
    /// No address more can be pinned.
    #[error("{MAX_PINNED} addresses are pinned already")]
    Full,
    /// The namespace cannot be entered.
    #[error("cannot enter the sandbox's namespace")]
    Enter(#[source] std::io::Error),
    /// Neither kind can be raised.
    #[error("no fence can be raised: eBPF: {ebpf}; nftables: {nftables}")]
    Neither {
        /// Why not the first.
        ebpf: String,
        /// Why not the second.
        nftables: String,
    },
}

/// A fence that stands.
pub(crate) trait Fence: Send {
    /// Which kind.
    fn kind(&self) -> FenceKind;

    /// Lets the rules of these numbers hold for this address too, for so long; longer, if it was pinned
    /// for longer.
    ///
    /// # Errors
    /// [`FenceError`]; nothing has changed then.
    fn pin(
        &mut self,
        address: Ipv4Addr,
        rules: &[usize],
        lasts: Duration,
    ) -> Result<(), FenceError>;

    /// What it has counted.
    ///
    /// # Errors
    /// [`FenceError`] if the kernel does not tell.
    fn tally(&self) -> Result<Tally, FenceError>;
}

/// Raises a fence on the tap in this namespace: that kind, or the first that the kernel takes.
pub(crate) fn raise(
    inner: &Namespace,
    policy: &Policy,
    table: &Table,
    kind: Option<FenceKind>,
) -> Result<Box<dyn Fence>, FenceError> {
    let by_program =
        || ebpf::Ebpf::raise(inner, policy, table).map(|fence| Box::new(fence) as Box<dyn Fence>);
    let by_rule =
        || nft::Nft::raise(inner, policy, table).map(|fence| Box::new(fence) as Box<dyn Fence>);
    match kind {
        Some(FenceKind::Ebpf) => by_program(),
        Some(FenceKind::Nftables) => by_rule(),
        None => by_program().or_else(|refused| {
            tracing::debug!(reason = %chain(&refused), "no eBPF fence: trying nftables");
            by_rule().map_err(|other| FenceError::Neither {
                ebpf: chain(&refused),
                nftables: chain(&other),
            })
        }),
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let causes: Vec<String> = causes.map(ToString::to_string).collect();
    causes.join(": ")
}
