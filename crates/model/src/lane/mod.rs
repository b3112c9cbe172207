//! The life of one lane: from nothing to a verified host, and back.
//!
//! ```text
//!   Planned ─create─▶ Created ─reach─▶ Reachable ─prepare─▶ CloudInit ─sync─▶ Synced ─deploy─▶ Deployed ─verify─▶ Verified
//!      │                 │                 │                    │                │                 │                 │
//!      └─────────────────┴─────────────────┴──────── retire ────┴────────────────┴─────────────────┴─────────────────┘
//!                                                       ▼
//!                                              Expiring ─────▶ Retired
//! ```
//!
//! A lane is what its journal says: a list of [`Record`]s, each written, and on the disk, **before**
//! what it tells of is done. So what was begun is known after a crash, but not whether it was done:
//! each [`Step`] can be done again, and a create is looked for before it is repeated. Everything
//! leads to Expiring, from where the only way is to Retired; a step that fails leaves the lane at
//! its stage.
//!
//! | File | Holds |
//! | --- | --- |
//! | `label.rs` | names that every provider takes |
//! | `record.rs` | what a journal says |
//! | `life.rs` | the machine |

mod label;
mod life;
mod record;
#[cfg(test)]
mod tests;

pub use crate::id::LaneId;
pub use label::{Label, LabelError, MAX_LABEL};
pub use life::{Impossible, Lane, Stage};
pub use record::{Difference, Handle, Record, Step, Terms};
