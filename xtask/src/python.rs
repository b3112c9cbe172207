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
    let name = package.split('[').next().unwrap_or(package);
    let folder = format!("{name}=={version}");
    let wanted = format!("{package}=={version}");
    Ok(installed(workspace, &folder, &[&wanted])?.join(program))
}

/// A Python that has these packages, each `name==version`.
pub(crate) fn with(workspace: &Workspace, wanted: &[&str]) -> Result<PathBuf> {
    Ok(installed(workspace, &wanted.join("+"), wanted)?.join("python"))
}

/// A folder with the programs of packages; those are installed, if they are not there.
fn installed(workspace: &Workspace, folder: &str, wanted: &[&str]) -> Result<PathBuf> {
    let folder = workspace.target.join("python").join(folder);
    let programs = folder.join("bin");
    // Written last: a folder without it was left half made.
    let made = folder.join("made");
    if made.exists() {
        return Ok(programs);
    }
    println!("installing {}", wanted.join(" "));
    let mut python = Command::new("python3");
    output(python.args(["-m", "venv", "--clear"]).arg(&folder))?;
    let mut pip = Command::new(programs.join("pip"));
    pip.args(["install", "--quiet", "--disable-pip-version-check"]);
    output(pip.args(wanted))?;
    fs::write(&made, "").with_context(|| format!("cannot write {}", made.display()))?;
    Ok(programs)
}
