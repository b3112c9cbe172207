//! What goes into the machine and what comes out.

use std::fmt;
use std::time::Duration;

use super::state::{Reason, State};
use crate::id::ExecId;
use crate::time::Moment;

/// Everything that a sandbox is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Somebody wants something.
    Asked(Asked),
    /// An action has been carried out.
    Done(Action),
    /// An action has ended without effect.
    Failed(Action),
    /// An exec has ended, or never began although it was admitted.
    ExecEnded(ExecId),
    /// Somebody uses it without an exec: reads a file, sends input.
    Used,
    /// How much processor time its VMM has used in all.
    CpuUsed(Duration),
    /// Its VMM ended by itself. Not told of one that an action ends or replaces: whoever does that
    /// stops watching it first.
    VmmDied,
    /// The service that owns it ends.
    ServiceEnds,
    /// Time has passed.
    Tick,
}

/// What can be asked of a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Begin an exec. Not an action: many run at once, until each has ended.
    Exec(ExecId),
    /// Stop its processors.
    Pause,
    /// Let them go on.
    Resume,
    /// Take a snapshot, to keep or to fork.
    Save,
    /// Go back to a snapshot.
    RollBack,
    /// Let its time be over at this moment instead.
    ExpireAt(Moment),
    /// End it.
    Destroy,
}

/// What the owner of a sandbox does for it, and then tells as done or failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make its microVM.
    Create,
    /// Stop its processors.
    Pause,
    /// Let them go on.
    Resume,
    /// Take a snapshot.
    Save,
    /// Replace its microVM by one restored from a snapshot.
    RollBack,
    /// Drop any other action; end its microVM and remove its files. What is gone already does not
    /// make it fail.
    Destroy,
}

/// Why something that was asked is not done. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Something else is being done; it may be asked again afterwards.
    #[error("the sandbox is {state}")]
    Busy {
        /// What is being done.
        state: State,
    },
    /// This cannot be done in the state it is in.
    #[error("a sandbox that is {state} cannot {asked}")]
    WrongState {
        /// Where it is.
        state: State,
        /// What was asked.
        asked: Asked,
    },
    /// It is destroyed, or about to be.
    #[error("the sandbox is gone: {reason}")]
    Gone {
        /// Why.
        reason: Reason,
    },
    /// It may not live as long.
    #[error("the sandbox may not live longer than {most:?} in all")]
    OverCap {
        /// How long it may live, from its creation on.
        most: Duration,
    },
    /// It runs too much at once.
    #[error("{limit} execs run in the sandbox, which is the most")]
    TooManyExecs {
        /// [`MAX_EXECS`](super::MAX_EXECS).
        limit: usize,
    },
    /// An exec with this id runs.
    #[error("an exec with the same id runs in the sandbox")]
    ExecExists,
}

impl fmt::Display for Asked {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Exec(_) => "begin an exec",
            Self::Pause => "be paused",
            Self::Resume => "be resumed",
            Self::Save => "be saved",
            Self::RollBack => "be rolled back",
            Self::ExpireAt(_) => "be given another time",
            Self::Destroy => "be destroyed",
        })
    }
}
