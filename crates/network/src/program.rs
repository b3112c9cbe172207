//! Programs of the host that change its network: `ip` (iproute2) and `nft` (nftables).

use std::io::{self, Write};
use std::process::{Command, Stdio};

use serde_json::Value;

/// Where they are looked for: an ordinary user's `PATH` may lack the folders of root's programs.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// What went wrong with one.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// It is not there.
    #[error("{program} is not installed")]
    Missing {
        /// Its name.
        program: &'static str,
    },
    /// It cannot be run.
    #[error("cannot run {program}")]
    Run {
        /// Its name.
        program: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It says no.
    #[error("{program} failed: {message}")]
    Failed {
        /// Its name.
        program: &'static str,
        /// What it says.
        message: String,
    },
}

impl ProgramError {
    /// What the user can do about it, where that is known.
    #[must_use]
    pub fn remedy(&self) -> Option<&'static str> {
        match self {
            ProgramError::Missing { program: "nft" } => Some("apt-get install nftables"),
            ProgramError::Missing { .. } => Some("apt-get install iproute2"),
            _ => None,
        }
    }
}

/// Carries out lines of `ip -batch`, in the namespace of the calling thread.
pub(crate) fn ip(lines: &[String]) -> Result<(), ProgramError> {
    run("ip", &["-batch", "-"], &(lines.join("\n") + "\n")).map(|_| ())
}

/// What `ip -json` tells.
pub(crate) fn ip_json(words: &[&str]) -> Result<Value, ProgramError> {
    let words: Vec<&str> = ["-json"].iter().chain(words).copied().collect();
    json("ip", &run("ip", &words, "")?)
}

/// Carries out a ruleset of nft(8), all of it or nothing.
pub(crate) fn nft(ruleset: &str) -> Result<(), ProgramError> {
    run("nft", &["-f", "-"], ruleset).map(|_| ())
}

/// What `nft -j` tells.
pub(crate) fn nft_json(words: &[&str]) -> Result<Value, ProgramError> {
    let words: Vec<&str> = ["-j"].iter().chain(words).copied().collect();
    json("nft", &run("nft", &words, "")?)
}

fn json(program: &'static str, text: &str) -> Result<Value, ProgramError> {
    let text = if text.trim().is_empty() { "[]" } else { text };
    serde_json::from_str(text).map_err(|error| ProgramError::Failed {
        program,
        message: format!("it did not write JSON: {error}"),
    })
}

fn run(program: &'static str, words: &[&str], input: &str) -> Result<String, ProgramError> {
    let broken = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => ProgramError::Missing { program },
        _ => ProgramError::Run { program, source },
    };
    let found = PATH.split(':').map(|folder| format!("{folder}/{program}"));
    let Some(file) = found
        .into_iter()
        .find(|file| std::path::Path::new(file).is_file())
    else {
        return Err(ProgramError::Missing { program });
    };
    let mut child = Command::new(file)
        .args(words)
        .env_clear()
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(broken)?;
    // These programs read all of their input before they write more than a pipe holds.
    let written = child
        .stdin
        .take()
        .map(|mut stdin| stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().map_err(broken)?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr)
            .trim_end()
            .to_owned();
        let message = format!("{}: {stderr}", output.status);
        return Err(ProgramError::Failed { program, message });
    }
    written.transpose().map_err(broken)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
