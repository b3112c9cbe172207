//! Snapshots of warmed guests: one per template, shape of machine and VMM. They are this host's own, made on first use, and made
//! again when anything that they depend on has changed.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::lock::Lock;
use super::staging::Staging;
use super::templates::{Store, StoreError, Template};
use crate::digest::blake3_bytes;
use crate::file::at;

/// Changes whenever an older snapshot could not be used.
const SCHEMA: u32 = 1;
/// Snapshots kept for one template: other shapes, VMMs, or versions of this program.
const KEPT: usize = 4;
/// Part by which two measurements of one time-stamp counter may differ: one in a thousand.
const TSC_TOLERANCE: u64 = 1000;

const MEMORY: &str = "memory";
const STATE: &str = "state";
const MANIFEST: &str = "manifest.json";

/// Everything that a snapshot depends on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotOrigin {
    /// The template's name.
    pub template: String,
    /// Its content.
    pub template_id: String,
    /// The initrd's file name, which is a hash of its content.
    pub initrd: String,
    /// The VMM, the processor that guests see, and what executes their instructions.
    pub vmm: String,
    /// Guest memory in MiB.
    pub memory_mib: u32,
    /// Virtual processors.
    pub vcpus: u32,
}

impl SnapshotOrigin {
    fn key(&self) -> String {
        blake3_bytes(format!("{SCHEMA} {self:?}").as_bytes())
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct SnapshotManifest {
    origin: SnapshotOrigin,
    /// Rate of the time-stamp counter that the guest counts on, in kHz.
    tsc_khz: u64,
}

/// A snapshot in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    folder: PathBuf,
}

impl Snapshot {
    /// The guest's memory.
    pub fn memory(&self) -> PathBuf {
        self.folder.join(MEMORY)
    }

    /// The rest of its state.
    pub fn state(&self) -> PathBuf {
        self.folder.join(STATE)
    }
}

/// A snapshot that is being made. Dropped, it leaves nothing.
#[derive(Debug)]
pub struct SnapshotDraft {
    store: Store,
    origin: SnapshotOrigin,
    staging: Staging,
    _lock: Lock,
}

/// What [`Store::snapshot_or_draft`] found.
#[derive(Debug)]
pub enum Found {
    /// The snapshot.
    Snapshot(Snapshot),
    /// There is none yet, and nobody else is making it.
    Draft(Box<SnapshotDraft>),
}

impl SnapshotDraft {
    /// Where the memory goes.
    pub fn memory(&self) -> PathBuf {
        self.staging.path().join(MEMORY)
    }

    /// Where the rest of the state goes.
    pub fn state(&self) -> PathBuf {
        self.staging.path().join(STATE)
    }

    /// Both files are complete: puts them into the store, and removes what nobody needs any more.
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn commit(self, tsc_khz: u64) -> Result<Snapshot, StoreError> {
        let manifest = SnapshotManifest {
            origin: self.origin.clone(),
            tsc_khz,
        };
        let path = self.staging.path().join(MANIFEST);
        self.store.publish(&path, &manifest)?;
        let folder = self.store.snapshot_folder(&self.origin);
        remove(&folder)?;
        fs::rename(self.staging.path(), &folder).map_err(at("move", &folder))?;
        crate::file::sync(&self.store.snapshots_folder())?;
        self.store.trim_snapshots(&self.origin.template)?;
        Ok(Snapshot { folder })
    }
}

impl Store {
    /// The snapshot of that origin, if it is there. `tsc_khz` is what the host counts now.
    ///
    /// # Errors
    /// [`StoreError::BadManifest`].
    pub fn snapshot(
        &self,
        origin: &SnapshotOrigin,
        tsc_khz: u64,
    ) -> Result<Option<Snapshot>, StoreError> {
        let folder = self.snapshot_folder(origin);
        let path = folder.join(MANIFEST);
        if !path.exists() {
            return Ok(None);
        }
        let manifest: SnapshotManifest = super::templates::parse(&path)?;
        let usable = manifest.origin == *origin
            && manifest.tsc_khz.abs_diff(tsc_khz) <= tsc_khz / TSC_TOLERANCE;
        Ok(usable.then_some(Snapshot { folder }))
    }

    /// The snapshot of that origin, or the right to make it. Waits while somebody else makes it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn snapshot_or_draft(
        &self,
        origin: &SnapshotOrigin,
        tsc_khz: u64,
    ) -> Result<Found, StoreError> {
        if let Some(snapshot) = self.snapshot(origin, tsc_khz)? {
            return Ok(Found::Snapshot(snapshot));
        }
        let path = self
            .root()
            .join("locks")
            .join(format!("snapshot-{}", origin.key()));
        let lock = Lock::exclusive(&path).map_err(at("lock", &path))?;
        // Whoever had the lock has made it.
        if let Some(snapshot) = self.snapshot(origin, tsc_khz)? {
            return Ok(Found::Snapshot(snapshot));
        }
        Ok(Found::Draft(Box::new(SnapshotDraft {
            store: self.clone(),
            origin: origin.clone(),
            staging: self.staging()?,
            _lock: lock,
        })))
    }

    /// Removes a snapshot that turned out to be of no use; the next use makes another.
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn discard_snapshot(&self, origin: &SnapshotOrigin) -> Result<(), StoreError> {
        remove(&self.snapshot_folder(origin))
    }

    /// Removes the snapshots of templates that are not these. Returns the bytes freed.
    pub(super) fn keep_snapshots_of(&self, templates: &[Template]) -> Result<u64, StoreError> {
        let mut freed = 0;
        for (folder, manifest) in self.snapshots()? {
            let known = manifest.as_ref().is_some_and(|manifest| {
                templates.iter().any(|template| {
                    template.manifest().id == manifest.origin.template_id
                        && template.manifest().name == manifest.origin.template
                })
            });
            if !known {
                freed += size_on_disk(&folder);
                remove(&folder)?;
            }
        }
        Ok(freed)
    }

    /// Removes the oldest snapshots of a template, if there are too many. Clones that run keep what
    /// they have mapped.
    fn trim_snapshots(&self, template: &str) -> Result<(), StoreError> {
        let of_template = |(_, manifest): &(PathBuf, Option<SnapshotManifest>)| {
            manifest
                .as_ref()
                .is_some_and(|manifest| manifest.origin.template == template)
        };
        let mut found: Vec<_> = self
            .snapshots()?
            .into_iter()
            .filter(of_template)
            .map(|(folder, _)| {
                let made = fs::metadata(&folder).and_then(|meta| meta.modified());
                (made.ok(), folder)
            })
            .collect();
        found.sort();
        let surplus = found.len().saturating_sub(KEPT);
        for (_, folder) in found.into_iter().take(surplus) {
            remove(&folder)?;
        }
        Ok(())
    }

    /// Every snapshot's folder, with its manifest if that can be read.
    fn snapshots(&self) -> Result<Vec<(PathBuf, Option<SnapshotManifest>)>, StoreError> {
        let folder = self.snapshots_folder();
        let entries = fs::read_dir(&folder).map_err(at("list", &folder))?;
        entries
            .map(|entry| {
                let path = entry.map_err(at("list", &folder))?.path();
                let manifest = super::templates::parse(&path.join(MANIFEST)).ok();
                Ok((path, manifest))
            })
            .collect()
    }

    fn snapshots_folder(&self) -> PathBuf {
        self.root().join("snapshots")
    }

    fn snapshot_folder(&self, origin: &SnapshotOrigin) -> PathBuf {
        self.snapshots_folder().join(origin.key())
    }
}

fn remove(folder: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        done => Ok(done.map_err(at("remove", folder))?),
    }
}

/// The files of a snapshot are sparse.
fn size_on_disk(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    [MEMORY, STATE]
        .iter()
        .filter_map(|name| fs::metadata(folder.join(name)).ok())
        .map(|meta| meta.blocks() * 512)
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KHZ: u64 = 2_300_000;

    fn origin(memory_mib: u32) -> SnapshotOrigin {
        SnapshotOrigin {
            template: "base".into(),
            template_id: "1234".into(),
            initrd: "abcd.cpio".into(),
            vmm: "qemu".into(),
            memory_mib,
            vcpus: 1,
        }
    }

    fn draft(store: &Store, origin: &SnapshotOrigin) -> SnapshotDraft {
        match store.snapshot_or_draft(origin, KHZ).unwrap() {
            Found::Draft(draft) => *draft,
            Found::Snapshot(snapshot) => panic!("there is one: {snapshot:?}"),
        }
    }

    fn make(store: &Store, origin: &SnapshotOrigin) -> Snapshot {
        let draft = draft(store, origin);
        fs::write(draft.memory(), "memory").unwrap();
        fs::write(draft.state(), "state").unwrap();
        draft.commit(KHZ).unwrap()
    }

    fn names(folder: &Path) -> usize {
        fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn a_snapshot_is_found_by_all_that_it_depends_on() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let made = make(&store, &origin(256));
        assert_eq!(fs::read(made.memory()).unwrap(), b"memory");
        assert_eq!(store.snapshot(&origin(256), KHZ).unwrap(), Some(made));
        let others = [
            SnapshotOrigin {
                template_id: "5678".into(),
                ..origin(256)
            },
            SnapshotOrigin {
                initrd: "ef.cpio".into(),
                ..origin(256)
            },
            SnapshotOrigin {
                vmm: "qemu, newer".into(),
                ..origin(256)
            },
            SnapshotOrigin {
                vcpus: 2,
                ..origin(256)
            },
            origin(512),
        ];
        for other in others {
            assert_eq!(store.snapshot(&other, KHZ).unwrap(), None, "{other:?}");
        }
    }

    #[test]
    fn another_counter_makes_another_snapshot_but_a_measuring_error_does_not() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        make(&store, &origin(256));
        assert!(store.snapshot(&origin(256), KHZ + 500).unwrap().is_some());
        assert!(store.snapshot(&origin(256), KHZ * 2).unwrap().is_none());
    }

    #[test]
    fn a_draft_that_is_dropped_leaves_nothing_and_lets_others_make_it() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let half = draft(&store, &origin(256));
        fs::write(half.memory(), "half").unwrap();
        drop(half);
        assert_eq!(names(&root.path().join("staging")), 0);
        assert_eq!(names(&root.path().join("snapshots")), 0);
        make(&store, &origin(256));
    }

    #[test]
    fn whoever_waits_gets_what_the_other_made() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let first = draft(&store, &origin(256));
        fs::write(first.memory(), "").unwrap();
        fs::write(first.state(), "").unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| store.snapshot_or_draft(&origin(256), KHZ).unwrap());
            first.commit(KHZ).unwrap();
            assert!(matches!(waiting.join().unwrap(), Found::Snapshot(_)));
        });
    }

    #[test]
    fn only_so_many_are_kept_and_none_of_a_template_that_is_gone() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        for memory_mib in 1..=6 {
            make(&store, &origin(memory_mib));
        }
        assert_eq!(names(&root.path().join("snapshots")), KEPT);
        assert!(store.snapshot(&origin(6), KHZ).unwrap().is_some());
        assert!(store.snapshot(&origin(1), KHZ).unwrap().is_none());
        store.keep_snapshots_of(&[]).unwrap();
        assert_eq!(names(&root.path().join("snapshots")), 0);
    }
}
