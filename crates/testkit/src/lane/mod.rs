//! Clouds and machines that are made up, for lanes: all that a lane asks of the world, with faults
//! at any call.
//!
//! | File | Holds |
//! | --- | --- |
//! | `faults.rs` | which call fails, and how |
//! | `cloud.rs` | a provider |
//! | `machine.rs` | the machines that it makes, once somebody logs in |

mod cloud;
mod faults;
mod machine;

pub use cloud::SimulatedCloud;
pub use faults::{Fault, Faults};
pub use machine::{SimulatedAccess, Trouble};
