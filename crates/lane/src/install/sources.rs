//! Sources that the machine builds programs of.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Folders that stay here: what was built of the sources, and their history.
const FOLDERS: [&str; 3] = ["target", ".git", "node_modules"];
/// Files that stay here, by how their names begin or end: they may hold secrets, and no build needs them.
const SECRET_BEGINS: [&str; 3] = [".env", "id_", "credentials"];
const SECRET_ENDS: [&str; 4] = [".pem", ".key", ".p12", ".secret"];

/// Copies them, but for what stays here. Links are copied as links.
pub(super) fn copy(from: &Path, to: &Path) -> Result<(), (PathBuf, io::Error)> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |error| (path, error)
    };
    fs::create_dir_all(to).map_err(at(to))?;
    for entry in fs::read_dir(from).map_err(at(from))? {
        let entry = entry.map_err(at(from))?;
        let (path, copied) = (entry.path(), to.join(entry.file_name()));
        let name = entry.file_name().to_string_lossy().into_owned();
        let kind = entry.file_type().map_err(at(&path))?;
        if kind.is_dir() {
            if !FOLDERS.contains(&name.as_str()) {
                copy(&path, &copied)?;
            }
        } else if is_secret(&name) {
            tracing::info!(path = %path.display(), "stays here: it may hold a secret");
        } else if kind.is_symlink() {
            let target = fs::read_link(&path).map_err(at(&path))?;
            std::os::unix::fs::symlink(target, &copied).map_err(at(&copied))?;
        } else if kind.is_file() {
            // Its time too: what did not change is neither sent nor built again.
            fs::copy(&path, &copied).map_err(at(&path))?;
            let changed = entry.metadata().and_then(|metadata| metadata.modified());
            let changed = changed.map_err(at(&path))?;
            let file = fs::File::options().write(true).open(&copied);
            file.and_then(|file| file.set_modified(changed))
                .map_err(at(&copied))?;
        }
    }
    Ok(())
}

fn is_secret(name: &str) -> bool {
    SECRET_BEGINS.iter().any(|begin| name.starts_with(begin))
        || SECRET_ENDS.iter().any(|end| name.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_built_and_what_is_secret_stays_here() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        for path in [
            "Cargo.toml",
            "crates/a/src/lib.rs",
            "crates/a/target/x",
            "target/debug/a",
            ".git/config",
            ".cargo/config.toml",
            ".env",
            "crates/a/.env.local",
            "deploy.pem",
            "id_ed25519",
        ] {
            let path = from.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        std::os::unix::fs::symlink("Cargo.toml", from.join("link")).unwrap();
        copy(&from, &to).unwrap();
        let there = |path: &str| to.join(path).symlink_metadata().is_ok();
        for path in [
            "Cargo.toml",
            "crates/a/src/lib.rs",
            ".cargo/config.toml",
            "link",
        ] {
            assert!(there(path), "{path}");
        }
        for path in [
            "target",
            ".git",
            "crates/a/target",
            ".env",
            "crates/a/.env.local",
            "deploy.pem",
            "id_ed25519",
        ] {
            assert!(!there(path), "{path}");
        }
        let changed = |path: &Path| path.metadata().unwrap().modified().unwrap();
        assert_eq!(
            changed(&from.join("Cargo.toml")),
            changed(&to.join("Cargo.toml"))
        );
    }
}
