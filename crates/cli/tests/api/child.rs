//! This program as a child process: another user, or one to be killed.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Which test of this program to be, in a child process, and on which path.
const ROLE: &str = "FIRELANE_API_TEST_ROLE";

/// The path that this process is to work on, if it is a child with this role.
pub(crate) fn role(name: &str) -> Option<PathBuf> {
    let value = std::env::var(ROLE).ok()?;
    let (role, path) = value.split_once('=')?;
    (role == name).then(|| PathBuf::from(path))
}

/// A child that runs one test with a role.
pub(crate) fn command(test: &str, role: &str, path: &Path) -> Command {
    let program = std::env::current_exe().expect("this program is a file");
    let mut command = Command::new(program);
    command
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(ROLE, format!("{role}={}", path.display()))
        .stdin(Stdio::null());
    command
}
