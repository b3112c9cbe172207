//! Where templates are, and what is done to them on record.

use firelane_model::id::BuildId;
use serde::{Deserialize, Serialize};

use super::super::Call;
use super::Caller;
use crate::template::{Build, NewBuild};

/// The host whose templates are meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PickHost {
    /// Its name; without one, the first that takes work.
    pub host: Option<String>,
}

impl Call for PickHost {
    const NAME: &'static str = "host.pick";
    type Answer = String;
}

/// Has a template built.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BuildTemplate {
    /// Who asks.
    pub caller: Caller,
    /// Where; without one, on the first host that takes work.
    pub host: Option<String>,
    /// What.
    pub request: NewBuild,
}

impl Call for BuildTemplate {
    const NAME: &'static str = "template.build";
    type Answer = Build;
}

/// The host that has a build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FindBuild {
    /// Its name.
    pub id: BuildId,
}

impl Call for FindBuild {
    const NAME: &'static str = "build.find";
    type Answer = String;
}

/// Has a template removed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RemoveTemplate {
    /// Who asks.
    pub caller: Caller,
    /// Where; without one, on the first host that takes work.
    pub host: Option<String>,
    /// Its name.
    pub name: String,
}

impl Call for RemoveTemplate {
    const NAME: &'static str = "template.remove";
    type Answer = ();
}
