//! What an agent is asked about runs.

use firelane_model::id::RunId;
use serde::{Deserialize, Serialize};

use crate::bus::Call;
use crate::event::{Input, LogPage, ReadLog};
use crate::run::RunRequest;

/// A run for this host. Given once: a host that has had it refuses it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StartRun {
    /// Its name.
    pub id: RunId,
    /// What to run.
    pub request: RunRequest,
}

impl Call for StartRun {
    const NAME: &'static str = "run.start";
    type Answer = ();
}

/// What happened to a run here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FollowRun {
    /// Its name.
    pub id: RunId,
    /// From where, and how much. What was read is forgotten here.
    pub read: ReadLog,
}

impl Call for FollowRun {
    const NAME: &'static str = "run.follow";
    type Answer = LogPage;
}

/// Something for a program that runs here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FeedRun {
    /// Its run.
    pub id: RunId,
    /// What.
    pub input: Input,
}

impl Call for FeedRun {
    const NAME: &'static str = "run.feed";
    type Answer = ();
}

/// Ends a run here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StopRun {
    /// Its name.
    pub id: RunId,
}

impl Call for StopRun {
    const NAME: &'static str = "run.stop";
    type Answer = ();
}
