//! Machines of others: what a lane asks of a provider, and who can be asked.
//!
//! A [`Provider`] gets a machine, finds it again and gives it back. It knows nothing of what the
//! machine is for: stages, SSH and services are `firelane-lane`'s.
//!
//! | Module | Holds |
//! | --- | --- |
//! | [`provider`] | the trait, and what a provider says of itself |
//! | [`machine`] | what is asked for, and what there is |
//! | [`marker`] | how a machine of ours is known among others |
//! | [`error`] | how a call fails: class, and whether it may have had an effect |
//! | [`retry`] | the one layer that calls again |
//! | [`registry`] | names and providers |
//! | [`settings`] | what providers get to know of their user |
//! | [`http`] | the one client of all providers |
//! | `networks` | who is let in |
//! | `script` | providers that are shell scripts |
//! | `providers` | one file or folder for each that is built in |
//!
//! A new provider is one file in `providers`, and one line in [`registry`].

pub mod error;
pub mod http;
pub mod machine;
pub mod marker;
mod networks;
pub mod provider;
mod providers;
pub mod registry;
pub mod retry;
mod script;
pub mod settings;

pub use error::{Class, CloudError, Effect};
pub use machine::{Handle, Machine, MachineState, Spec};
pub use provider::Provider;

/// An error with its causes, on one line.
pub fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
