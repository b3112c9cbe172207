//! Where lanes are kept, and which provider is meant.

use std::collections::BTreeMap;
use std::env;
use std::path::PathBuf;

use firelane_cloud::Provider;
use firelane_cloud::registry::{self, OpenError, Settings};
use firelane_cloud::retry::{Policy, Retrying};
use firelane_lane::crew::{Crew, Timing};
use firelane_lane::journal::{JournalError, Yard};
use firelane_lane::progress::Progress;
use firelane_lane::ssh::Ssh;
use firelane_model::lane::{Label, Lane};

use crate::failure::Failure;

/// A provider whose calls are repeated.
pub(super) type Opened = Retrying<Box<dyn Provider>>;

/// Folder of lanes: `$FIRELANE_LANES`; else `/var/lib/firelane/lanes` for root, and for others
/// `firelane` in `$XDG_STATE_HOME`, else in `~/.local/state`.
pub(super) fn state() -> Result<PathBuf, Failure> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty());
    if let Some(folder) = set("FIRELANE_LANES") {
        return Ok(folder.into());
    }
    if rustix::process::geteuid().is_root() {
        return Ok("/var/lib/firelane/lanes".into());
    }
    if let Some(folder) = set("XDG_STATE_HOME") {
        return Ok(PathBuf::from(folder).join("firelane"));
    }
    let home = set("HOME").ok_or_else(|| {
        Failure::usage("there is no folder for lanes: set FIRELANE_LANES, XDG_STATE_HOME or HOME")
    })?;
    Ok(PathBuf::from(home).join(".local/state/firelane"))
}

/// Lanes of this user.
pub(super) fn yard() -> Result<Yard, Failure> {
    Ok(Yard::new(state()?))
}

/// The provider with this name.
pub(super) fn provider(name: &str) -> Result<Opened, Failure> {
    let variables = env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let settings = Settings {
        variables: variables.collect::<BTreeMap<_, _>>(),
        state: state()?.join("providers"),
    };
    let opened = registry::open(name, &settings)?;
    Ok(Retrying::new(opened, Policy::default()))
}

/// What acts on lanes of one provider.
pub(super) fn crew<'a>(
    provider: &'a dyn Provider,
    yard: &'a Yard,
    progress: &'a dyn Progress,
) -> Crew<'a> {
    Crew {
        provider,
        access: &Ssh,
        progress,
        yard,
        timing: Timing::default(),
    }
}

/// The lane with this label, as its journal tells it.
pub(super) fn known(yard: &Yard, label: &Label) -> Result<Lane, Failure> {
    let lanes = yard.lanes()?;
    match lanes.into_iter().find(|(name, _)| name == label) {
        Some((_, lane)) => Ok(lane?),
        None => Err(Failure::usage(format!(
            "this machine knows no lane {label}; firelane list names those that it knows"
        ))),
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Failure {
        match error {
            OpenError::Unknown { .. } => Failure::usage(error.to_string()),
            OpenError::Provider(error) => (*error).into(),
        }
    }
}

impl From<firelane_cloud::CloudError> for Failure {
    fn from(error: firelane_cloud::CloudError) -> Failure {
        let remedy = error.remedy.clone();
        let failure = Failure::usage(error.to_string());
        match remedy {
            Some(remedy) => failure.with_remedy(remedy),
            None => failure,
        }
    }
}

impl From<JournalError> for Failure {
    fn from(error: JournalError) -> Failure {
        let remedy = match &error {
            JournalError::Busy { .. } => Some("wait until it is done"),
            JournalError::Line { .. } | JournalError::Order { .. } => {
                Some("firelane down --provider NAME --label LABEL finds its machine by the marker")
            }
            _ => None,
        };
        let failure = Failure::platform(error);
        match remedy {
            Some(remedy) => failure.with_remedy(remedy),
            None => failure,
        }
    }
}
