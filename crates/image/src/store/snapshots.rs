//! Snapshots of warmed guests: one per template, shape of machine and VMM. They are this host's own, made on first use, and made
//! again when anything that they depend on has changed.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::lock::Lock;
use super::quarantine::{self, Quarantined};
use super::staging::Staging;
use super::template::Template;
use super::templates::{Store, StoreError, to_json};
use crate::digest::blake3_bytes;
use crate::file::{at, put, read, sync};
use crate::signing::{Content, Kind, Piece, Refusal, Subject, Verified};

/// Changes whenever an older snapshot could not be used.
const SCHEMA: u32 = 2;
/// Snapshots kept for one template: other shapes, VMMs, or versions of this program.
const KEPT: usize = 4;
/// Part by which two measurements of one time-stamp counter may differ: one in a thousand.
const TSC_TOLERANCE: u64 = 1000;

const MEMORY: &str = "memory";
const STATE: &str = "state";
const MANIFEST: &str = "manifest.json";
const LEAVES: &str = "memory.ranges";
const SEAL: &str = "seal.json";

/// Everything that a snapshot depends on. In seals its members are in the order of their names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotOrigin {
    /// The processor that guests see.
    pub cpu: String,
    /// The initrd's file name, which is a hash of what it is made of.
    pub initrd: String,
    /// The kernel's file name, which is a hash of its content.
    pub kernel: String,
    /// Guest memory in MiB.
    pub memory_mib: u32,
    /// The template's name.
    pub template: String,
    /// Its content.
    pub template_id: String,
    /// Virtual processors.
    pub vcpus: u32,
    /// The VMM, its version and its arguments, and what executes instructions.
    pub vmm: String,
}

impl SnapshotOrigin {
    fn subject(&self) -> String {
        format!("the snapshot of template {:?}", self.template)
    }

    fn refused(&self, reason: Refusal) -> StoreError {
        StoreError::Refused {
            subject: self.subject(),
            template: self.template.clone(),
            reason: Box::new(reason),
        }
    }

    fn key(&self) -> String {
        blake3_bytes(format!("{SCHEMA} {self:?}").as_bytes())
    }

    /// The first property that another has otherwise: its name, and both values.
    pub(crate) fn first_difference(
        &self,
        other: &SnapshotOrigin,
    ) -> Option<(&'static str, String, String)> {
        let properties = |origin: &SnapshotOrigin| {
            [
                ("processor", origin.cpu.clone()),
                ("VMM", origin.vmm.clone()),
                ("template", origin.template.clone()),
                ("the template's content", origin.template_id.clone()),
                ("kernel", origin.kernel.clone()),
                ("initrd", origin.initrd.clone()),
                ("memory in MiB", origin.memory_mib.to_string()),
                ("number of processors", origin.vcpus.to_string()),
            ]
        };
        let mut pairs = properties(self).into_iter().zip(properties(other));
        let (one, other) = pairs.find(|(one, other)| one != other)?;
        Some((one.0, one.1, other.1))
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

/// What may be restored: both paths are those of verified files.
impl Verified<Snapshot> {
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
    Snapshot(Verified<Snapshot>),
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

    /// Both files are complete: seals them, puts them into the store, and removes what nobody needs any more.
    ///
    /// # Errors
    /// [`StoreError::File`], [`StoreError::Seal`].
    pub fn commit(self, tsc_khz: u64) -> Result<Verified<Snapshot>, StoreError> {
        let manifest = to_json(&SnapshotManifest {
            origin: self.origin.clone(),
            tsc_khz,
        });
        let (store, draft) = (&self.store, self.staging.path());
        let path = draft.join(MANIFEST);
        put(&path, &manifest, 0o644)?;
        sync(&path)?;
        let (subject, now) = (subject(&self.origin), Timestamp::now());
        let signing = store.signing();
        let sealed = signing.seal(&draft.join(SEAL), &subject, &pieces(draft, &manifest), now);
        let epoch = sealed.map_err(|source| StoreError::Seal {
            subject: self.origin.subject(),
            source: Box::new(source),
        })?;
        let folder = store.snapshot_folder(&self.origin);
        remove(&folder)?;
        fs::rename(draft, &folder).map_err(at("move", &folder))?;
        sync(&store.snapshots_folder())?;
        signing.raise(&subject, epoch)?;
        store.trim_snapshots(&self.origin.template)?;
        let verified = store.verify_snapshot(&folder, &manifest, &self.origin, epoch, now);
        verified.map_err(|reason| self.origin.refused(reason))
    }
}

/// What looking for a snapshot showed.
enum Look {
    None,
    Usable(Verified<Snapshot>),
    Refused(Refusal),
}

impl Store {
    /// The snapshot of that origin, if it is there, verifies and counts on the host's counter, `tsc_khz`. One that does not is left
    /// to [`Store::snapshot_or_draft`].
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn snapshot(
        &self,
        origin: &SnapshotOrigin,
        tsc_khz: u64,
    ) -> Result<Option<Verified<Snapshot>>, StoreError> {
        match self.look(origin, tsc_khz, Timestamp::now())? {
            Look::Usable(snapshot) => Ok(Some(snapshot)),
            Look::None | Look::Refused(_) => Ok(None),
        }
    }

    /// The snapshot of that origin, or the right to make it. Waits while somebody else makes it. One that does not verify is put
    /// aside, and told in the log.
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
        match self.look(origin, tsc_khz, Timestamp::now())? {
            Look::Usable(snapshot) => return Ok(Found::Snapshot(snapshot)),
            Look::Refused(reason) => self.put_aside(origin, &reason)?,
            Look::None => {}
        }
        Ok(Found::Draft(Box::new(SnapshotDraft {
            store: self.clone(),
            origin: origin.clone(),
            staging: self.staging()?,
            _lock: lock,
        })))
    }

    fn look(
        &self,
        origin: &SnapshotOrigin,
        tsc_khz: u64,
        now: Timestamp,
    ) -> Result<Look, StoreError> {
        let folder = self.snapshot_folder(origin);
        // Before the manifest: one that replaces it meanwhile makes it no older than it was.
        let epochs = &self.signing().epochs;
        let newest = epochs.newest(Kind::Snapshot, &origin.key())?;
        let path = folder.join(MANIFEST);
        let json = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(match folder.exists() {
                    true => Look::Refused(Refusal::Missing {
                        file: MANIFEST.to_owned(),
                    }),
                    false => Look::None,
                });
            }
            json => json.map_err(at("read", &path))?,
        };
        match self.verify_snapshot(&folder, &json, origin, newest, now) {
            Ok(snapshot) => {
                let manifest: SnapshotManifest = super::templates::parse_bytes(&path, &json)?;
                let differs = manifest.tsc_khz.abs_diff(tsc_khz) > tsc_khz / TSC_TOLERANCE;
                Ok(if differs {
                    Look::None
                } else {
                    Look::Usable(snapshot)
                })
            }
            Err(reason) => Ok(Look::Refused(reason)),
        }
    }

    fn verify_snapshot(
        &self,
        folder: &Path,
        manifest: &[u8],
        origin: &SnapshotOrigin,
        newest: u64,
        now: Timestamp,
    ) -> Result<Verified<Snapshot>, Refusal> {
        let (seal, pieces) = (folder.join(SEAL), pieces(folder, manifest));
        let verified = self
            .signing()
            .verify(&seal, &subject(origin), &pieces, newest, now)?;
        let folder = folder.to_owned();
        Ok(verified.map(|()| Snapshot { folder }))
    }

    /// Takes a refused snapshot out of the way.
    fn put_aside(&self, origin: &SnapshotOrigin, reason: &Refusal) -> Result<(), StoreError> {
        let folder = self.snapshot_folder(origin);
        let what = origin.subject();
        if reason.is_evidence() {
            let kept = quarantine::put_aside(self.root(), &folder, &what, reason)?;
            tracing::warn!(%reason, kept = %kept.display(), "{what} is refused, and is made again");
        } else {
            tracing::warn!(%reason, "{what} is refused, and is made again");
            remove(&folder)?;
        }
        Ok(())
    }

    /// Snapshots that were refused and are kept to be looked at, the oldest first.
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn quarantined(&self) -> Result<Vec<Quarantined>, StoreError> {
        Ok(quarantine::list(self.root())?)
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

    /// Space that the files of all snapshots take, in bytes: what their clones share in the page cache.
    ///
    /// # Errors
    /// [`StoreError`] if the folder cannot be read.
    pub fn snapshots_bytes(&self) -> Result<u64, StoreError> {
        let files = self
            .snapshots()?
            .into_iter()
            .flat_map(|(folder, _)| [MEMORY, STATE].map(|name| fs::metadata(folder.join(name))));
        // One that goes away meanwhile takes none.
        Ok(files.flatten().map(|file| file.blocks() * 512).sum())
    }

    /// Every snapshot's folder, with its manifest if that can be read.
    fn snapshots(&self) -> Result<Vec<(PathBuf, Option<SnapshotManifest>)>, StoreError> {
        let folder = self.snapshots_folder();
        let entries = fs::read_dir(&folder).map_err(at("list", &folder))?;
        entries
            .map(|entry| {
                let path = entry.map_err(at("list", &folder))?.path();
                let manifest = read(&path.join(MANIFEST))
                    .ok()
                    .and_then(|json| super::templates::parse_bytes(&path, &json).ok());
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

fn subject(origin: &SnapshotOrigin) -> Subject {
    Subject {
        kind: Kind::Snapshot,
        name: origin.key(),
        origin: Some(origin.clone()),
    }
}

/// All that the seal of a snapshot in this folder covers.
fn pieces<'a>(folder: &Path, manifest: &'a [u8]) -> [Piece<'a>; 3] {
    let (file, leaves) = (folder.join(MEMORY), folder.join(LEAVES));
    [
        Piece {
            name: "manifest",
            content: Content::Bytes(manifest),
        },
        Piece {
            name: MEMORY,
            content: Content::Ranged { file, leaves },
        },
        Piece {
            name: STATE,
            content: Content::File(folder.join(STATE)),
        },
    ]
}

fn remove(folder: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
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
    const MEMORY_CONTENT: &[u8] = b"memory";

    fn origin(memory_mib: u32) -> SnapshotOrigin {
        SnapshotOrigin {
            cpu: "emulated".into(),
            initrd: "abcd.cpio".into(),
            kernel: "9876".into(),
            memory_mib,
            template: "base".into(),
            template_id: "1234".into(),
            vcpus: 1,
            vmm: "qemu".into(),
        }
    }

    fn draft(store: &Store, origin: &SnapshotOrigin) -> SnapshotDraft {
        match store.snapshot_or_draft(origin, KHZ).unwrap() {
            Found::Draft(draft) => *draft,
            Found::Snapshot(snapshot) => panic!("there is one: {snapshot:?}"),
        }
    }

    fn make(store: &Store, origin: &SnapshotOrigin) -> Verified<Snapshot> {
        let draft = draft(store, origin);
        fs::write(draft.memory(), MEMORY_CONTENT).unwrap();
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
        assert_eq!(fs::read(made.memory()).unwrap(), MEMORY_CONTENT);
        let found = store.snapshot(&origin(256), KHZ).unwrap().unwrap();
        assert_eq!(*found, *made);
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
            let found = store.snapshot(&other, KHZ).unwrap();
            assert!(found.is_none(), "{other:?}");
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

    /// What the refusal of a changed snapshot says; it is in quarantine then, or gone, and another can be made.
    fn refusal(change: impl FnOnce(&Store, &Verified<Snapshot>)) -> String {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let snapshot = make(&store, &origin(256));
        change(&store, &snapshot);
        let look = store.look(&origin(256), KHZ, Timestamp::now()).unwrap();
        let Look::Refused(reason) = look else {
            panic!("it was taken");
        };
        let wanted = usize::from(reason.is_evidence());
        drop(draft(&store, &origin(256)));
        let kept = store.quarantined().unwrap();
        assert_eq!(kept.len(), wanted, "{kept:?}");
        let told = kept
            .iter()
            .all(|kept| kept.reason.ends_with(&reason.to_string()));
        assert!(told, "{kept:?}");
        assert_eq!(names(&root.path().join("snapshots")), 0);
        make(&store, &origin(256));
        assert!(store.snapshot(&origin(256), KHZ).unwrap().is_some());
        reason.to_string()
    }

    #[test]
    fn a_snapshot_that_is_not_as_it_was_sealed_is_put_aside_and_made_again() {
        fn check(change: impl FnOnce(&Store, &Verified<Snapshot>), expected: &str) {
            let reason = refusal(change);
            assert!(reason.contains(expected), "{reason}, not {expected}");
        }
        check(
            |_, snapshot| fs::write(snapshot.memory(), "memorx").unwrap(),
            "memory has changed at or after byte 0",
        );
        check(
            |_, snapshot| fs::write(snapshot.memory(), "mem").unwrap(),
            "memory is truncated: it has 3 of 6 bytes",
        );
        check(
            |_, snapshot| fs::write(snapshot.state(), "stat3").unwrap(),
            "state has changed",
        );
        check(
            |_, snapshot| fs::remove_file(snapshot.state()).unwrap(),
            "state is missing",
        );
        check(
            |store, snapshot| {
                let other = make(store, &origin(512));
                fs::rename(&snapshot.folder, snapshot.folder.with_extension("old")).unwrap();
                fs::rename(&other.folder, &snapshot.folder).unwrap();
                remove(&snapshot.folder.with_extension("old")).unwrap();
            },
            "it is the seal of snapshot",
        );
        check(
            |_, snapshot| {
                let seal = snapshot.folder.join(SEAL);
                let text = fs::read_to_string(&seal).unwrap();
                fs::write(&seal, text.replace("\"vcpus\":1", "\"vcpus\":2")).unwrap();
            },
            "its signature is not that of key",
        );
        check(
            |_, snapshot| fs::remove_file(snapshot.folder.join(SEAL)).unwrap(),
            "it is not signed",
        );
    }

    #[test]
    fn a_snapshot_expires() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        make(&store, &origin(256));
        let later = Timestamp::now() + jiff::SignedDuration::from_hours(24 * 31);
        let look = store.look(&origin(256), KHZ, later).unwrap();
        assert!(matches!(look, Look::Refused(Refusal::Expired { .. })));
    }

    #[test]
    fn a_snapshot_that_was_put_back_is_older_than_what_was_seen() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let old = make(&store, &origin(256)).folder.clone();
        let copy = root.path().join("copy");
        fs::rename(&old, &copy).unwrap();
        make(&store, &origin(256));
        remove(&old).unwrap();
        fs::rename(&copy, &old).unwrap();
        let look = store.look(&origin(256), KHZ, Timestamp::now()).unwrap();
        let Look::Refused(Refusal::OlderEpoch { epoch, newest }) = look else {
            panic!("it was taken");
        };
        assert_eq!((epoch, newest), (1, 2));
    }

    #[test]
    fn quarantine_is_bounded() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        for memory_mib in 1..=6 {
            let snapshot = make(&store, &origin(memory_mib));
            fs::write(snapshot.state(), "stat3").unwrap();
            drop(draft(&store, &origin(memory_mib)));
        }
        let kept = store.quarantined().unwrap();
        let kept: Vec<_> = kept
            .iter()
            .filter_map(|kept| kept.folder.file_name())
            .collect();
        assert_eq!(kept, ["000003", "000004", "000005", "000006"]);
    }
}
