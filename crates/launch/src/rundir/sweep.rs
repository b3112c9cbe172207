//! Removes what microVMs left whose owner was killed.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use firelane_sys::cgroup::Cgroups;
use rustix::fs::{FlockOperation, OFlags, flock};

use super::{ASIDE, OWNER, Record, is_ours, lock_base, remove_aside};
use crate::machine::is_id;

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

/// Sweeps `base`; tells only of folders that had lost their owner, and of what was left half made and
/// resists.
#[must_use]
pub fn sweep(base: &Path) -> Vec<Swept> {
    let (orphans, mut swept) = find(base);
    swept.extend(orphans.into_iter().map(|(path, lock)| {
        let result = remove(&path, &lock);
        Swept { path, result }
    }));
    swept
}

/// The folders without owner, each with its lock, which makes us its owner. Nobody makes a run
/// directory meanwhile, so what is found half made was left so, and is removed; what resists is told.
fn find(base: &Path) -> (Vec<(PathBuf, File)>, Vec<Swept>) {
    let nothing = || (Vec::new(), Vec::new());
    if !is_ours(base) {
        return nothing();
    }
    let Ok(_alone) = lock_base(base, false) else {
        // There is no base folder, or it is not ours to sweep.
        return nothing();
    };
    let Ok(entries) = fs::read_dir(base) else {
        return nothing();
    };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let (half_made, whole): (Vec<PathBuf>, Vec<PathBuf>) = paths.partition(|path| {
        path.file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(ASIDE.as_bytes()))
    });
    let resists = half_made.into_iter().filter_map(|path| {
        let result = remove_aside(&path);
        result.is_err().then_some(Swept { path, result })
    });
    let resists = resists.collect();
    let orphans = whole.into_iter().filter_map(|path| {
        let lock = orphaned(&path)?;
        Some((path, lock))
    });
    (orphans.collect(), resists)
}

/// The lock of a run directory of ours that has no owner. A stranger's folder has another name,
/// another owner, or no record of ours.
fn orphaned(path: &Path) -> Option<File> {
    let name = path.file_name()?.to_str()?;
    if !is_id(name) || !is_ours(path) {
        return None;
    }
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mut options = File::options();
    options.read(true).custom_flags(flags.bits().cast_signed());
    let lock = options.open(path.join(OWNER)).ok()?;
    let meta = lock.metadata().ok()?;
    if !meta.is_file() || meta.uid() != rustix::process::geteuid().as_raw() {
        return None;
    }
    flock(&lock, FlockOperation::NonBlockingLockExclusive).ok()?;
    Some(lock)
}

fn remove(path: &Path, lock: &File) -> io::Result<()> {
    let text = io::read_to_string(lock)?;
    // Without a record, the microVM was never started. What is there and no record is not ours.
    let record: Record = match text.as_str() {
        "" => Record::default(),
        text => serde_json::from_str(text).map_err(io::Error::other)?,
    };
    if let Some(vmm) = record.vmm {
        vmm.kill()?;
        let start = Instant::now();
        while vmm.lives() && start.elapsed() < END_DEADLINE {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    // By its name, not by its record: a record cannot lead us to another's groups. A user's sweep may come before
    // hostd has removed its own, which that user may not touch.
    if !record.hosted
        && let Some(id) = path.file_name().and_then(|name| name.to_str())
    {
        Cgroups::left_by(id).remove()?;
    }
    super::remove(path)
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
        for (folder, record) in [("stranger", "not a record"), ("a.b", ""), ("vm_2", "{}")] {
            fs::create_dir(base.path().join(folder)).unwrap();
            fs::write(base.path().join(folder).join(OWNER), record).unwrap();
        }
        // A folder of ours that others may write, and a pipe that would hold up whoever opens it.
        fs::create_dir(base.path().join("open")).unwrap();
        fs::set_permissions(base.path().join("open"), fs::Permissions::from_mode(0o777)).unwrap();
        fs::create_dir(base.path().join("pipe")).unwrap();
        let pipe = base.path().join("pipe").join(OWNER);
        let (kind, mode) = (
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
        );
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, kind, mode, 0).unwrap();
        assert!(sweep(base.path()).iter().all(|swept| swept.result.is_err()));
        assert!(owned.path().exists());
        for folder in ["stranger", "a.b", "vm_2", "open", "pipe"] {
            assert!(base.path().join(folder).exists(), "{folder}");
        }
    }

    #[test]
    fn a_base_that_others_may_write_is_not_swept() {
        let base = base();
        drop(RunDir::make(base.path(), "vm-1").unwrap());
        fs::set_permissions(base.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(sweep(base.path()).is_empty());
        assert!(base.path().join("vm-1").exists());
        assert!(RunDir::make(base.path(), "vm-2").is_err());
    }

    #[test]
    fn what_was_never_finished_is_removed() {
        let base = base();
        let half = base.path().join(format!("{ASIDE}vm-1"));
        fs::create_dir(&half).unwrap();
        assert!(
            sweep(base.path()).is_empty(),
            "it owned nothing that is worth telling"
        );
        assert!(!half.exists());
    }

    #[test]
    fn two_that_remove_the_same_do_not_fail() {
        let base = base();
        for round in 0..100 {
            let aside = base.path().join(format!("{ASIDE}vm-{round}"));
            for folder in ["root", "vmm"] {
                fs::create_dir_all(aside.join(folder)).unwrap();
                fs::write(aside.join(folder).join("file"), "").unwrap();
            }
            let both = [(); 2].map(|()| {
                let aside = aside.clone();
                std::thread::spawn(move || remove_aside(&aside))
            });
            for removed in both {
                removed.join().unwrap().unwrap();
            }
            assert!(!aside.exists());
        }
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
            hosted: false,
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
