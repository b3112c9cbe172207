//! The queue of what waits for a slot, and how long that will take.
//!
//! [`FairQueue`] divides the service between tenants by weighted deficit round robin: each round
//! gives every tenant that waits as much credit as it has weight, and an entry is popped once its
//! tenant's credit covers its cost. Two tenants that both wait are served in the proportion of
//! their weights, whatever they cost and however many entries they pushed; a tenant that has
//! nothing waiting has no credit either.
//!
//! ```text
//!   push ─▶ waiting ─▶ popped
//!              ├─────▶ cancelled
//!              └─────▶ overdue ─▶ expired
//! ```
//!
//! Rounds in which nobody's credit is enough are skipped by arithmetic instead of being walked
//! through: the round in which an entry is popped follows from its tenant's credit and from the
//! costs before it. That makes a pop logarithmic, and lets a position be told without playing
//! the future through.
//!
//! | File | Holds |
//! | --- | --- |
//! | `fair.rs` | the queue: entries, bounds, deadlines, whose turn it is |
//! | `tenant.rs` | what one tenant has waiting, and its credit |
//! | `lane.rs` | the entries of one priority, first in first out, with sums |
//! | `service.rs` | how long the wait will be |

mod fair;
mod lane;
mod service;
mod tenant;
#[cfg(test)]
mod tests;

pub use fair::{Entry, FairQueue, Limits, Place, Refused};
pub use service::ServiceRate;
