//! From nothing, or from where it stopped, to a verified host.
//!
//! | File | Holds |
//! | --- | --- |
//! | `wish.rs` | what is wanted |
//! | `plan.rs` | everything before the first record |
//! | `forward.rs` | step by step to the end, or back |
//! | `error.rs` | why it did not come to its end |

mod error;
mod forward;
mod plan;
mod wish;

pub use error::{Then, UpError};
pub use forward::{Up, up};
pub use plan::{Prepared, prepare_spec};
pub use wish::{Firecracker, OnError, USUAL_TTL, Wish};
