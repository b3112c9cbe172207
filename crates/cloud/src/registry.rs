//! Names and providers.

use std::path::Path;

use crate::error::CloudError;
use crate::provider::Provider;
use crate::providers::aws;
use crate::providers::existing::Existing;
use crate::providers::hetzner;
use crate::providers::local::Local;
use crate::script::Script;
pub use crate::settings::Settings;

/// Makes one provider of what its user has set. Changes nothing and asks nobody.
type Open = fn(&Settings) -> Result<Box<dyn Provider>, CloudError>;

/// One provider that is built in.
struct Entry {
    name: &'static str,
    /// In a few words, for lists.
    about: &'static str,
    open: Open,
}

/// Those that are built in. A new one is one line here, and one file.
const PROVIDERS: &[Entry] = &[
    Entry {
        name: aws::NAME,
        about: "Amazon Web Services: nested virtualization or bare metal",
        open: aws::open,
    },
    Entry {
        name: "existing",
        about: "a machine that is there already, over SSH",
        open: |_| Ok(Box::new(Existing)),
    },
    Entry {
        name: hetzner::NAME,
        about: "Hetzner Cloud: without KVM",
        open: hetzner::open,
    },
    Entry {
        name: "local",
        about: "a rehearsal host on this machine",
        open: |settings| Ok(Box::new(Local::new(settings))),
    },
];

/// Why there is no such provider.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// None has this name.
    #[error("there is no provider {name:?}; there are {known}, or the path of a script")]
    Unknown {
        /// What was asked for.
        name: String,
        /// All names.
        known: String,
    },
    /// It cannot work as it is set up.
    #[error(transparent)]
    Provider(#[from] Box<CloudError>),
}

/// The provider with this name, or that is this script.
pub fn open(name: &str, settings: &Settings) -> Result<Box<dyn Provider>, OpenError> {
    if is_script(name) {
        return Ok(Box::new(Script::open(name, settings).map_err(Box::new)?));
    }
    let Some(entry) = PROVIDERS.iter().find(|entry| entry.name == name) else {
        let names: Vec<_> = PROVIDERS.iter().map(|entry| entry.name).collect();
        return Err(OpenError::Unknown {
            name: name.to_owned(),
            known: names.join(", "),
        });
    };
    Ok((entry.open)(settings).map_err(Box::new)?)
}

/// All names, each with what it is.
pub fn all() -> impl Iterator<Item = (&'static str, &'static str)> {
    PROVIDERS.iter().map(|entry| (entry.name, entry.about))
}

/// Whether a name is meant as the path of a script.
pub fn is_script(name: &str) -> bool {
    name.contains('/') || Path::new(name).extension().is_some_and(|end| end == "sh")
}
