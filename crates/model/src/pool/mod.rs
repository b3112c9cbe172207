//! The warm pool of one template: microVMs that wait to be claimed.
//!
//! Its owner asks [`Pool::plan`] after each event and once in a while besides, and does what the
//! plan says; what came of it is told to the pool.
//!
//! ```text
//!   plan ─▶ Preparing ──ready──▶ Ready ──claim──▶ (claimed)
//!               │                  │ │
//!               │                  │ └──plan─▶ Retiring ──gone──▶ (gone)
//!               └─────failed───────┘
//!                       ▼
//!                   (failed)
//! ```
//!
//! What is in brackets has left the pool and is its claimer's, or nobody's. A slot that leaves never
//! comes back, and no slot has the id of another. Preparing, Ready and Retiring together never are
//! more than the maximum: each of them takes memory.
//!
//! How many are wanted: the minimum, and as many more as are usually claimed while one is being
//! prepared. A slot that soon will be too old is replaced while it still can be claimed. After a
//! failure the pool waits, each time twice as long, and then tries one alone.
//!
//! | File | Holds |
//! | --- | --- |
//! | `slots.rs` | the pool |
//! | `demand.rs` | how often slots are claimed, and how long one takes to prepare |

mod demand;
mod slots;
#[cfg(test)]
mod tests;

pub use slots::{Counts, Plan, Pool, PoolConfig, SlotId, Totals};
