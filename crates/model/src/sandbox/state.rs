//! The states of a sandbox.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where a sandbox is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum State {
    /// Its microVM is being made.
    Creating,
    /// Its microVM runs.
    Running,
    /// Its processors are being stopped.
    Pausing,
    /// Its processors stand still.
    Paused,
    /// Its processors are being continued.
    Resuming,
    /// A snapshot of it is being taken, to keep or to fork.
    Saving {
        /// What it was and will be again.
        from: Still,
    },
    /// Its microVM is being replaced by one restored from a snapshot.
    RollingBack,
    /// Its microVM is being ended and its files removed.
    Destroying {
        /// Why.
        reason: Reason,
    },
    /// Nothing is left of it but its record.
    Destroyed {
        /// Why.
        reason: Reason,
    },
}

/// A state that lasts until something is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Still {
    /// [`State::Running`]
    Running,
    /// [`State::Paused`]
    Paused,
}

impl From<Still> for State {
    fn from(still: Still) -> Self {
        match still {
            Still::Running => Self::Running,
            Still::Paused => Self::Paused,
        }
    }
}

/// Why a sandbox ends; the first reason stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Someone asked for it.
    Asked,
    /// Its time was over.
    TtlOver,
    /// Nobody used it, and its policy says so.
    Idle,
    /// Its VMM ended by itself.
    VmmDied,
    /// The service was started again, and no microVM outlives it.
    HostRestarted,
    /// It could not be created or rolled back.
    Failed,
}

impl fmt::Display for State {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Creating => "being created",
            Self::Running => "running",
            Self::Pausing => "being paused",
            Self::Paused => "paused",
            Self::Resuming => "being resumed",
            Self::Saving { .. } => "being saved",
            Self::RollingBack => "being rolled back",
            Self::Destroying { .. } => "being destroyed",
            Self::Destroyed { .. } => "destroyed",
        })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Asked => "it was asked for",
            Self::TtlOver => "its time was over",
            Self::Idle => "nobody used it",
            Self::VmmDied => "its VMM died",
            Self::HostRestarted => "the service was restarted",
            Self::Failed => "it could not be made or rolled back",
        })
    }
}
