//! What an agent is asked about programs in sandboxes. Any of it wakes a sandbox that is paused.

use firelane_model::id::ExecId;
use serde::{Deserialize, Serialize};

use super::SandboxRef;
use crate::bus::Call;
use crate::event::{Input, LogPage, ReadLog};
use crate::exec::{Exec, NewExec};

/// A program to be started; answered when it runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StartExec {
    /// Where.
    pub sandbox: SandboxRef,
    /// What it shall be called.
    pub id: ExecId,
    /// What it shall be.
    pub request: NewExec,
}

impl Call for StartExec {
    const NAME: &'static str = "exec.start";
    type Answer = Exec;
}

/// The programs of a sandbox that run, and those that ended last; newest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListExecs {
    /// Where.
    pub sandbox: SandboxRef,
}

impl Call for ListExecs {
    const NAME: &'static str = "exec.list";
    type Answer = Vec<Exec>;
}

/// One program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetExec {
    /// Where.
    pub sandbox: SandboxRef,
    /// Its name.
    pub id: ExecId,
}

impl Call for GetExec {
    const NAME: &'static str = "exec.get";
    type Answer = Exec;
}

/// What happened to a program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FollowExec {
    /// Where.
    pub sandbox: SandboxRef,
    /// Its name.
    pub id: ExecId,
    /// From where, and how much.
    pub read: ReadLog,
}

impl Call for FollowExec {
    const NAME: &'static str = "exec.follow";
    type Answer = LogPage;
}

/// Something for a program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedExec {
    /// Where.
    pub sandbox: SandboxRef,
    /// Its name.
    pub id: ExecId,
    /// What.
    pub input: Input,
}

impl Call for FeedExec {
    const NAME: &'static str = "exec.feed";
    type Answer = ();
}
