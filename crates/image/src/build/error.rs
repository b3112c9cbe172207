//! What can go wrong in a build, and what the user can do about it.

use std::path::PathBuf;

use crate::file::FileError;
use crate::kernel::KernelError;
use crate::recipe::debian::FetchError;
use crate::recipe::definition::DefinitionError;
use crate::recipe::wheel::WheelError;
use crate::store::StoreError;
use crate::tool::ToolError;

/// Why a template was not built. Each variant is a step.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The definition cannot be used.
    #[error(transparent)]
    Definition(#[from] DefinitionError),
    /// Templates are for x86-64 hosts so far.
    #[error("cannot build templates on {arch}")]
    Architecture {
        /// The host's architecture.
        arch: &'static str,
    },
    /// A program that a build runs is not installed.
    #[error("program {program} is not installed")]
    MissingTool {
        /// The program.
        program: &'static str,
        /// The Debian package it is in.
        package: &'static str,
    },
    /// There is too little disk space to start.
    #[error("{} has {free_mib} MiB free, building needs about {needed_mib} MiB", path.display())]
    Space {
        /// The folder that would be filled.
        path: PathBuf,
        /// MiB needed, an estimate.
        needed_mib: u64,
        /// MiB free.
        free_mib: u64,
    },
    /// The small kernel was asked for.
    #[error("the small kernel has no network devices, and the template has a network")]
    NoDevices,
    /// The kernel's packages could not be fetched.
    #[error("cannot get the kernel")]
    KernelFetch(#[source] Box<FetchError>),
    /// The kernel could not be taken apart.
    #[error("cannot prepare the kernel")]
    Kernel(#[from] KernelError),
    /// The packages could not be fetched.
    #[error("cannot get the packages of template {template:?}")]
    Packages {
        /// The template.
        template: String,
        /// Why.
        #[source]
        source: Box<FetchError>,
    },
    /// Files of a wheel could not be had.
    #[error("cannot get the wheels of template {template:?}")]
    Wheels {
        /// The template.
        template: String,
        /// Why.
        #[source]
        source: Box<WheelError>,
    },
    /// A fix-up of the tree failed.
    #[error("cannot complete the root file system ({step})")]
    FixUp {
        /// The fix-up.
        step: &'static str,
        /// Why.
        #[source]
        source: FileError,
    },
    /// Byte-code could not be compiled.
    #[error("cannot compile python byte-code")]
    Bytecode(#[source] ToolError),
    /// The image could not be written.
    #[error("cannot write the root file system image")]
    Image(#[source] ToolError),
    /// The store failed.
    #[error("cannot use the template store")]
    Store(#[from] StoreError),
    /// A file of the build could not be handled.
    #[error(transparent)]
    File(#[from] FileError),
}

impl BuildError {
    /// What the user can do about it, where that is known.
    pub fn remedy(&self) -> Option<String> {
        match self {
            Self::MissingTool { package, .. } => return Some(format!("apt-get install {package}")),
            Self::Space {
                path, needed_mib, ..
            } => {
                return Some(format!(
                    "free {needed_mib} MiB at {}, or set FIRELANE_HOME to another disk",
                    path.display()
                ));
            }
            Self::Store(error) => return error.remedy(),
            Self::Kernel(KernelError::Tools { packages, .. }) => {
                return Some(format!("apt-get install {}", packages.join(" ")));
            }
            Self::Kernel(KernelError::Options { .. } | KernelError::NoSource) => {
                return Some("build with Debian's kernel: --kernel debian".to_owned());
            }
            Self::KernelFetch(error) if matches!(**error, FetchError::UnknownPackages { .. }) => {
                return Some("check the mirror: it lacks the kernel".to_owned());
            }
            Self::Packages { source, .. }
                if let FetchError::UnknownPackages { names } = &**source =>
            {
                return Some(format!(
                    "correct {} in the definition's packages",
                    names.join(", ")
                ));
            }
            _ => {}
        }
        let text = chain(self);
        let has = |marks: &[&str]| marks.iter().any(|mark| text.contains(mark));
        if has(&["No space left on device", "no storage space"]) {
            return Some("free disk space, or set FIRELANE_HOME to another disk".to_owned());
        }
        if has(&["NO_PUBKEY", "is not signed", "keyring"]) {
            return Some("apt-get install debian-archive-keyring".to_owned());
        }
        if has(&["No module named pip", "program python3 is not installed"]) {
            return Some("apt-get install python3-pip, or put the wheel into the folder FIRELANE_DOWNLOADS names".to_owned());
        }
        if has(NETWORK) {
            let other = match self {
                Self::Wheels { .. } => "FIRELANE_DOWNLOADS to a folder that has the wheel",
                _ => "FIRELANE_DEBIAN_MIRROR to a mirror it can reach",
            };
            return Some(format!(
                "check that this machine has network access, or set {other}"
            ));
        }
        None
    }
}

/// What apt and pip say when they reach nobody.
const NETWORK: &[&str] = &[
    "Temporary failure resolving",
    "Could not resolve",
    "Could not connect",
    "Connection failed",
    "Network is unreachable",
    "Failed to establish a new connection",
    "NewConnectionError",
    "Name or service not known",
    "No matching distribution found",
];

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text.push_str(": ");
        text.push_str(&error.to_string());
        next = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packages(source: FetchError) -> BuildError {
        BuildError::Packages {
            template: "mine".to_owned(),
            source: Box::new(source),
        }
    }

    fn tool(stderr: &str) -> BuildError {
        packages(FetchError::Tool(ToolError::TimedOut {
            program: "mmdebstrap".to_owned(),
            timeout: std::time::Duration::from_secs(1),
            stderr: stderr.to_owned(),
        }))
    }

    #[test]
    fn known_failures_have_a_remedy() {
        fn check(error: &BuildError, expected: Option<&str>) {
            let remedy = error.remedy();
            match expected {
                Some(part) => assert!(
                    remedy.as_deref().is_some_and(|text| text.contains(part)),
                    "{error}: {remedy:?}"
                ),
                None => assert_eq!(remedy, None, "{error}"),
            }
        }
        check(
            &BuildError::MissingTool {
                program: "mkfs.erofs",
                package: "erofs-utils",
            },
            Some("apt-get install erofs-utils"),
        );
        check(
            &KernelError::Tools {
                names: vec!["flex", "libelf.h"],
                packages: vec!["flex", "libelf-dev"],
            }
            .into(),
            Some("apt-get install flex libelf-dev"),
        );
        check(
            &KernelError::Options {
                options: vec!["CONFIG_A=y".to_owned()],
            }
            .into(),
            Some("--kernel debian"),
        );
        check(
            &BuildError::Space {
                path: "/x".into(),
                needed_mib: 7,
                free_mib: 1,
            },
            Some("free 7 MiB at /x"),
        );
        check(
            &packages(FetchError::UnknownPackages {
                names: vec!["nope".to_owned()],
            }),
            Some("correct nope"),
        );
        check(
            &tool("W: Temporary failure resolving 'host'"),
            Some("FIRELANE_DEBIAN_MIRROR"),
        );
        check(
            &tool("tar: write error: No space left on device"),
            Some("free disk space"),
        );
        check(
            &tool("GPG error: NO_PUBKEY 0123"),
            Some("debian-archive-keyring"),
        );
        check(&tool("something else"), None);
        let full = std::io::Error::from_raw_os_error(28);
        check(
            &FileError {
                action: "write",
                path: "/x".into(),
                source: full,
            }
            .into(),
            Some("free disk space"),
        );
    }
}
