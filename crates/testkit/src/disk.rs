//! A file system that is soon full.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file system in memory, gone with its value. Only root can have one.
#[derive(Debug)]
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts it on a folder that does not exist yet. The size is one of `mount`'s words: `8m`, `4k`.
    ///
    /// # Panics
    /// If that fails.
    #[must_use]
    pub fn mount(path: &Path, size: &str) -> SmallDisk {
        fs::create_dir(path).expect("our own folder");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]);
        let mounted = mount.arg(path).status();
        assert!(
            mounted.is_ok_and(|status| status.success()),
            "it is mounted"
        );
        SmallDisk(path.to_owned())
    }

    /// Its folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let gone = Command::new("umount").arg(&self.0).status();
        assert!(gone.is_ok_and(|status| status.success()), "nobody uses it");
    }
}
