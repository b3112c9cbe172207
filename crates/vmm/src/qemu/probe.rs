//! QEMU on this host, and whether its guests really run on KVM.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Qemu;
use crate::driver::{Acceleration, Machine};
use crate::host::stamp;
use crate::trial::Trial;

/// How to get it.
pub(super) const REMEDY: &str = "apt-get install --no-install-recommends qemu-system-x86";
/// QEMU is not usable.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// It is not installed.
    #[error("QEMU is not installed: {program} was not found")]
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
}

impl ProbeError {
    /// What the user can do about it.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        REMEDY
    }
}

/// The program if it is there.
///
/// # Errors
/// [`ProbeError::Missing`].
pub fn find_program(program: &Path) -> Result<(), ProbeError> {
    if program.is_file() {
        Ok(())
    } else {
        Err(ProbeError::Missing {
            program: program.into(),
        })
    }
}

/// The version that the program reports, for example `7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)`.
///
/// # Errors
/// [`ProbeError`].
pub fn version(program: &Path) -> Result<String, ProbeError> {
    find_program(program)?;
    let broken = |source| ProbeError::Broken {
        program: program.into(),
        source,
    };
    let output = Command::new(program)
        .arg("--version")
        .output()
        .map_err(broken)?;
    let text = String::from_utf8_lossy(&output.stdout);
    let first = text.lines().next().unwrap_or_default();
    match first.strip_prefix("QEMU emulator version ") {
        Some(version) => Ok(version.into()),
        None => Err(broken(io::Error::other("it does not tell its version"))),
    }
}

impl Qemu {
    /// Whether guests really run on this host's KVM; see [`Trial::find`].
    pub async fn try_kvm(&self, machine: &Machine, cache: &Path, fresh: bool) -> Trial {
        let programs = format!("qemu {}", stamp(&self.program));
        let driver = |tsc_khz| Qemu {
            acceleration: Acceleration::Kvm,
            tsc_khz,
            ..self.clone()
        };
        let hosted = self.hostd.is_some();
        Trial::find(&programs, hosted, machine, cache, fresh, driver).await
    }
}
