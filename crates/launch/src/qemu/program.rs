//! Where QEMU is.

use std::path::{Path, PathBuf};

/// The program's usual name.
pub const PROGRAM: &str = "qemu-system-x86_64";

/// QEMU's program: `$FIRELANE_QEMU`, else the one on `PATH`, else where distributions put it.
#[must_use]
pub fn default_program() -> PathBuf {
    let named = std::env::var_os("FIRELANE_QEMU").map(PathBuf::from);
    let on_path = || {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path)
            .map(|folder| folder.join(PROGRAM))
            .find(|path| path.is_file())
    };
    named
        .or_else(on_path)
        .unwrap_or_else(|| Path::new("/usr/bin").join(PROGRAM))
}
