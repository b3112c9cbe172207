//! Templates of a host, and their builds.

use firelane_model::id::BuildId;
use serde::{Deserialize, Serialize};

use super::super::Call;
use crate::template::{Build, BuildPage, NewBuild, Template};

/// The templates that this host has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListTemplates {}

impl Call for ListTemplates {
    const NAME: &'static str = "template.list";
    /// By name.
    type Answer = Vec<Template>;
}

/// One template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetTemplate {
    /// Its name.
    pub name: String,
}

impl Call for GetTemplate {
    const NAME: &'static str = "template.get";
    type Answer = Template;
}

/// Removes a template. What has begun with it goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropTemplate {
    /// Its name.
    pub name: String,
}

impl Call for DropTemplate {
    const NAME: &'static str = "template.drop";
    type Answer = ();
}

/// Begins to build a template.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StartBuild {
    /// What the build shall be called.
    pub id: BuildId,
    /// What is to be built.
    pub request: NewBuild,
}

impl Call for StartBuild {
    const NAME: &'static str = "build.start";
    type Answer = Build;
}

/// A build, and what follows a line of its log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadBuild {
    /// Its name.
    pub id: BuildId,
    /// The last line that the reader has.
    pub after: u64,
    /// Waits so long for a line to follow, in milliseconds.
    pub wait_ms: u64,
}

impl Call for ReadBuild {
    const NAME: &'static str = "build.read";
    type Answer = BuildPage;
}
