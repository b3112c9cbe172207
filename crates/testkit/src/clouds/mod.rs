//! Clouds that are not there: emulators of others, and what they lack, in front of them; or our own.
//!
//! | File | Holds |
//! | --- | --- |
//! | `moto.rs` | moto's server, which others wrote as a stand-in for AWS |
//! | `ec2.rs` | a proxy in front of it: what EC2 does and moto does not, and what goes wrong |
//! | `hetzner` | Hetzner Cloud, of our own: held by a description and a client that others wrote |

mod ec2;
pub mod hetzner;
mod moto;

pub use ec2::{Call, Ec2, Fault};
pub use moto::Moto;
