//! Python byte-code for the standard library, compiled ahead: guests cannot write it to their read-only root, and compiling at each
//! start is slow.
//!
//! The tree's own interpreter runs on the host through the tree's own dynamic loader: no chroot, so no root. So nothing may be in the tree yet
//! but what the distribution's packages hold, whose signatures were checked: a definition's files could otherwise run on the host, and its links
//! lead out of the tree. Modules that a definition brings itself are not compiled ahead. Hash-based
//! files that are never checked against their source (PEP 552) make the result independent of file times.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::tool::{Tool, ToolError};

/// Time for compiling a standard library and its packages.
const TIMEOUT: Duration = Duration::from_secs(900);
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
const LOADER: &str = "ld-linux-x86-64.so.2";

/// Compiles what the tree has below `usr/lib/python3*`; does nothing where there is no Python.
pub(crate) fn compile(tree: &Path) -> Result<(), ToolError> {
    let Some(python) = interpreter(tree) else {
        return Ok(());
    };
    let folders = folders(tree);
    if folders.is_empty() {
        return Ok(());
    }
    let libraries = tree.join(LIBRARIES);
    let mut tool = Tool::new(&libraries.join(LOADER).display().to_string());
    let command = &mut tool.command;
    command.arg("--library-path").arg(&libraries).arg(&python);
    // No site, no user's folders, nothing written on import.
    command.args(["-S", "-s", "-B", "-m", "compileall", "-q", "-f", "-j", "1"]);
    command.args(["--invalidation-mode", "unchecked-hash"]);
    command.arg("-s").arg(tree).args(["-p", "/"]).args(&folders);
    // With -m the interpreter looks for modules in its working directory first.
    command.current_dir(tree);
    command.env_clear().env("LC_ALL", "C.UTF-8");
    command
        .env("PYTHONHOME", tree.join("usr"))
        .env("PYTHONHASHSEED", "0");
    tool.run(TIMEOUT)
}

/// `usr/bin/python3.N`: a real file, not the link `python3`.
fn interpreter(tree: &Path) -> Option<PathBuf> {
    let versioned = fs::read_link(tree.join("usr/bin/python3")).ok()?;
    let name = versioned.file_name()?.to_str()?;
    let path = tree.join("usr/bin").join(name);
    (name.starts_with("python3.") && path.symlink_metadata().ok()?.is_file()).then_some(path)
}

fn folders(tree: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(tree.join("usr/lib")) else {
        return Vec::new();
    };
    let mut folders: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("python3"))
        .map(|entry| entry.path())
        .filter(|path| path.symlink_metadata().is_ok_and(|meta| meta.is_dir()))
        .collect();
    folders.sort();
    folders
}
