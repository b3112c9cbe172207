//! Tools written in Python, each in a folder of its own below the target directory.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::program::output;
use crate::workspace::Workspace;

/// A program of the Python package of the same name; installed, if it is not there in this version.
pub(crate) fn program(workspace: &Workspace, name: &str, version: &str) -> Result<PathBuf> {
    program_of(workspace, name, name, version)
}

/// A program of a Python package, `name` or `name[extra,...]`.
pub(crate) fn program_of(
    workspace: &Workspace,
    program: &str,
    package: &str,
    version: &str,
) -> Result<PathBuf> {
    let wanted = format!("{package}=={version}");
    let name = package.split('[').next().unwrap_or(package);
    let folder = workspace.target.join("python");
    let folder = folder.join(format!("{name}=={version}"));
    let program = folder.join("bin").join(program);
    // Written last: a folder without it was left half made.
    let made = folder.join("made");
    if made.exists() {
        return Ok(program);
    }
    println!("installing {wanted}");
    let mut python = Command::new("python3");
    output(python.args(["-m", "venv", "--clear"]).arg(&folder))?;
    let mut pip = Command::new(folder.join("bin/pip"));
    output(pip.args(["install", "--quiet", "--disable-pip-version-check", &wanted]))?;
    fs::write(&made, "").with_context(|| format!("cannot write {}", made.display()))?;
    Ok(program)
}
