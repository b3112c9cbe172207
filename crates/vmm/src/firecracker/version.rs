//! Which Firecracker this is, and what that version can do.
//!
//! Sources: Firecracker `CHANGELOG.md`, `docs/snapshotting/versioning.md` and
//! `src/firecracker/swagger/firecracker.yaml`, v1.16.1. Unknown fields fail a whole request, so a field
//! is sent only to versions that have it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::str::FromStr;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

/// How long the program may take to tell its version.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest output that is read of it, in bytes.
const MAX_OUTPUT_BYTES: usize = 4096;

/// A version of Firecracker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// First number.
    pub major: u16,
    /// Second number.
    pub minor: u16,
    /// Third number.
    pub patch: u16,
}

impl Version {
    /// The oldest that boots microVMs for us.
    pub const BOOT_FLOOR: Version = Version::new(1, 13, 0);
    /// The oldest that restores them: before it, a restored vsock device could stay dead
    /// (firecracker#5969), and its socket's path could not be chosen.
    pub const RESTORE_FLOOR: Version = Version::new(1, 16, 1);

    /// A version by its numbers.
    #[must_use]
    pub const fn new(major: u16, minor: u16, patch: u16) -> Version {
        Version {
            major,
            minor,
            patch,
        }
    }

    /// Whether snapshots of it can be restored with a socket of our choice.
    #[must_use]
    pub fn restores(self) -> bool {
        self >= Version::RESTORE_FLOOR
    }

    /// Whether a microVM that is paused and resumed without a snapshot still takes connections: in 1.16
    /// its vsock device then waits for a word of the guest that never comes (firecracker#6100).
    #[must_use]
    pub fn resumes_vsock(self) -> bool {
        (self.major, self.minor) != (1, 16)
    }

    /// Whether serial output can be bounded in the VMM, and the guest's clock set on restore.
    #[must_use]
    pub fn has_serial_limit_and_clock(self) -> bool {
        self >= Version::new(1, 16, 0)
    }

    /// Whether Diff snapshots are right for guests of every size (1.15 mended those above 3 GiB).
    #[must_use]
    pub fn has_sound_diffs(self) -> bool {
        self >= Version::new(1, 15, 0)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// Text that is not a version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a version")]
pub struct BadVersion(String);

impl FromStr for Version {
    type Err = BadVersion;

    /// Reads `1.16.1`, `v1.16.1` and `v1.17.0-dev`.
    fn from_str(text: &str) -> Result<Version, BadVersion> {
        let bad = || BadVersion(text.chars().take(40).collect());
        let numbers = text.strip_prefix('v').unwrap_or(text);
        let numbers = numbers.split(['-', '+']).next().unwrap_or_default();
        let mut numbers = numbers.split('.').map(str::parse);
        let mut next = || numbers.next()?.ok();
        let version = match (next(), next(), next()) {
            (Some(major), Some(minor), Some(patch)) => Version::new(major, minor, patch),
            _ => return Err(bad()),
        };
        match numbers.next() {
            None => Ok(version),
            Some(_) => Err(bad()),
        }
    }
}

/// A program of Firecracker's cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// It is not there.
    #[error("{program} was not found")]
    Missing {
        /// The program looked for.
        program: PathBuf,
    },
    /// It does not run.
    #[error("cannot run {program}")]
    Broken {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It says nothing that we understand.
    #[error("{program} does not tell its version")]
    Unclear {
        /// The program.
        program: PathBuf,
        /// What is wrong with its words.
        #[source]
        source: BadVersion,
    },
    /// It is older than what we drive.
    #[error("{program} is version {found}, older than {}", Version::BOOT_FLOOR)]
    TooOld {
        /// The program.
        program: PathBuf,
        /// Its version.
        found: Version,
    },
    /// Firecracker and its jailer have to be of one version.
    #[error("{jailer} is version {found}, and Firecracker is {expected}")]
    OtherJailer {
        /// The jailer.
        jailer: PathBuf,
        /// Its version.
        found: Version,
        /// Firecracker's.
        expected: Version,
    },
}

impl FindError {
    /// What the user can do about it.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self {
            FindError::OtherJailer { expected, .. } => {
                format!("name the jailer of v{expected} in FIRELANE_JAILER")
            }
            _ => format!(
                "name a static Firecracker, v{} or later, in FIRELANE_FIRECRACKER, and its jailer in FIRELANE_JAILER",
                Version::RESTORE_FLOOR
            ),
        }
    }
}

/// The version that a program of Firecracker's reports: `Firecracker v1.16.1`, `Jailer v1.16.1`.
pub(super) async fn of(program: &Path) -> Result<Version, FindError> {
    let text = said(program, "--version").await?;
    let first = text.lines().next().unwrap_or_default();
    let version = first.split_ascii_whitespace().nth(1).unwrap_or(first);
    version.parse().map_err(|source| FindError::Unclear {
        program: program.into(),
        source,
    })
}

/// The version of snapshots that Firecracker writes and reads, which is independent of its own.
pub(super) async fn snapshot_format(program: &Path) -> Result<Version, FindError> {
    let text = said(program, "--snapshot-version").await?;
    let line = text.lines().next().unwrap_or_default();
    line.trim().parse().map_err(|source| FindError::Unclear {
        program: program.into(),
        source,
    })
}

async fn said(program: &Path, question: &str) -> Result<String, FindError> {
    if !program.is_file() {
        return Err(FindError::Missing {
            program: program.into(),
        });
    }
    let broken = |source| FindError::Broken {
        program: program.into(),
        source,
    };
    let mut command = Command::new(program);
    command
        .arg(question)
        .stdin(Stdio::null())
        .env_clear()
        .kill_on_drop(true);
    let output = timeout(ANSWER_TIMEOUT, command.output()).await;
    let output = output
        .map_err(|_| broken(io::ErrorKind::TimedOut.into()))?
        .map_err(broken)?;
    let said = &output.stdout[..output.stdout.len().min(MAX_OUTPUT_BYTES)];
    Ok(String::from_utf8_lossy(said).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_compared() {
        let check = |text: &str, expected| assert_eq!(text.parse(), Ok(expected), "{text}");
        check("1.16.1", Version::new(1, 16, 1));
        check("v1.16.1", Version::new(1, 16, 1));
        check("v1.17.0-dev", Version::new(1, 17, 0));
        for bad in ["", "1.16", "1.16.1.2", "v1.x.1", "1.16.99999"] {
            assert!(bad.parse::<Version>().is_err(), "{bad}");
        }
        assert!(Version::new(1, 9, 9) < Version::BOOT_FLOOR);
        assert!(!Version::new(1, 16, 0).restores());
        assert!(Version::new(2, 0, 0).restores());
    }

    #[tokio::test]
    async fn a_program_that_is_missing_or_says_nothing_is_named() {
        let missing = of(Path::new("/nonexistent/firecracker")).await;
        assert!(matches!(missing, Err(FindError::Missing { .. })));
        let unclear = of(Path::new("/bin/true")).await;
        assert!(matches!(unclear, Err(FindError::Unclear { .. })));
    }
}
