//! Removes what microVMs left whose owner was killed.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use super::{OWNER, Record};

/// How long a killed VMM may take to be gone.
const END_DEADLINE: Duration = Duration::from_secs(5);

/// What a sweep did with one folder.
#[derive(Debug)]
pub struct Swept {
    /// The folder.
    pub path: PathBuf,
    /// Whether everything it owned is gone.
    pub result: io::Result<()>,
}

/// Sweeps `base`; tells only of folders that had lost their owner.
#[must_use]
pub fn sweep(base: &Path) -> Vec<Swept> {
    let Ok(entries) = fs::read_dir(base) else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let lock = orphaned(&path)?;
            let result = remove(&path, &lock);
            Some(Swept { path, result })
        })
        .collect()
}

/// The lock of a folder that is ours and has no owner.
fn orphaned(path: &Path) -> Option<File> {
    let lock = File::options().read(true).open(path.join(OWNER)).ok()?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive).ok()?;
    Some(lock)
}

fn remove(path: &Path, lock: &File) -> io::Result<()> {
    let text = io::read_to_string(lock)?;
    // A record that was never written belongs to a microVM that never started.
    let record: Record = serde_json::from_str(&text).unwrap_or_default();
    if let Some(vmm) = record.vmm {
        vmm.kill()?;
        let start = Instant::now();
        while vmm.lives() && start.elapsed() < END_DEADLINE {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    record.cgroups.remove()?;
    fs::remove_dir_all(path)
}

#[cfg(test)]
mod tests {
    use super::super::RunDir;
    use super::*;
    use firelane_sys::process::ProcessId;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    fn base() -> tempfile::TempDir {
        let base = tempfile::tempdir().unwrap();
        fs::set_permissions(base.path(), fs::Permissions::from_mode(0o755)).unwrap();
        base
    }

    #[test]
    fn what_has_an_owner_or_is_not_ours_stays() {
        let base = base();
        let owned = RunDir::make(base.path(), "vm-1").unwrap();
        fs::create_dir(base.path().join("stranger")).unwrap();
        assert!(sweep(base.path()).is_empty());
        assert!(owned.path().exists());
        assert!(base.path().join("stranger").exists());
    }

    #[test]
    fn an_orphan_is_removed_and_its_vmm_ended() {
        let base = base();
        let owned = RunDir::make(base.path(), "vm-1").unwrap();
        let mut vmm = Command::new("sleep")
            .arg("600")
            .process_group(0)
            .spawn()
            .unwrap();
        let record = Record {
            vmm: Some(ProcessId::of(vmm.id()).unwrap()),
            ..Record::default()
        };
        owned.record(&record).unwrap();
        let path = owned.path().to_owned();
        drop(owned);
        let swept = sweep(base.path());
        assert_eq!(swept.len(), 1);
        swept[0].result.as_ref().unwrap();
        assert!(!path.exists());
        assert!(!vmm.wait().unwrap().success());
    }
}
