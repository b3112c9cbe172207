//! Where Firecracker is.

use std::path::PathBuf;

/// The program's usual name.
pub const PROGRAM: &str = "firecracker";

/// Firecracker's program: `$FIRELANE_FIRECRACKER`, else the one on `PATH`, if there is one.
#[must_use]
pub fn default_program() -> Option<PathBuf> {
    named("FIRELANE_FIRECRACKER", PROGRAM)
}

/// What this variable names, else the program of this name on `PATH`, if there is one.
#[must_use]
pub fn named(variable: &str, program: &str) -> Option<PathBuf> {
    if let Some(named) = std::env::var_os(variable) {
        return Some(named.into());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
}
