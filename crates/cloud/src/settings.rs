//! What providers get to know of their user.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// Variables of the environment, and where to keep things.
#[derive(Clone)]
pub struct Settings {
    /// Variables, for example `AWS_SUBNET_ID`, and `FIRELANE_AWS_ENDPOINT` in place of the
    /// provider's own address.
    pub variables: BTreeMap<String, String>,
    /// Folder for what a provider keeps on this machine. It may be missing.
    pub state: PathBuf,
}

/// Names only: values may be secret.
impl fmt::Debug for Settings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Settings")
            .field("variables", &self.variables.keys())
            .field("state", &self.state)
            .finish()
    }
}

impl Settings {
    /// A variable that is set and not empty.
    pub fn variable(&self, name: &str) -> Option<&str> {
        let value = self.variables.get(name)?;
        (!value.is_empty()).then_some(value.as_str())
    }
}
