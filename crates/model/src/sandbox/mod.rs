//! The life of one sandbox.
//!
//! One task owns each sandbox: it feeds [`Sandbox::apply`] with what was asked and with what
//! happened, and carries out the [`Action`] it is given, one at a time. The machine itself does
//! nothing and knows no VMM.
//!
//! ```text
//!                                ┌────────── RollingBack ◀───────────┐
//!                                ▼                                   │ (from Running or Paused)
//!   Creating ────────────────▶ Running ─────▶ Pausing ─────▶ Paused ─┘
//!                               │ ▲ ▲                         │ ▲ │
//!                               │ │ └──────── Resuming ◀──────┘ │ │
//!                               ▼ │                             │ ▼
//!                              Saving                          Saving
//!
//!   all of them ─────▶ Destroying{reason} ─────▶ Destroyed{reason}
//! ```
//!
//! Creating, Pausing, Resuming, Saving, RollingBack and Destroying are passing states: their action
//! is being carried out, and its end leads on. Only a destroy supersedes an action: its owner drops
//! what it was doing. What fails without harm leads back where it began; a creation or a roll-back
//! that fails leaves nothing that could be trusted, and leads to Destroying. A destroy that fails is
//! given again, later, until it succeeds.
//!
//! | File | Holds |
//! | --- | --- |
//! | `state.rs` | the states |
//! | `event.rs` | what goes in and what comes out |
//! | `idle.rs` | whether anybody uses it |
//! | `life.rs` | the machine |

mod event;
mod idle;
mod life;
mod state;
#[cfg(test)]
mod tests;

pub use event::{Action, Asked, Event, Refused};
pub use idle::{IdlePolicy, Then};
pub use life::{MAX_EXECS, Sandbox, Terms};
pub use state::{Reason, State, Still};
