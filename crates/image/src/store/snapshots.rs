//! Snapshots of warmed guests: one per template, shape of machine and VMM. They are this host's own, made on first use, and made
//! again when anything that they depend on has changed.

#[cfg(test)]
mod tests;

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::lock::Lock;
use super::quarantine::{self, Quarantined};
use super::staging::Staging;
use super::template::Template;
use super::templates::{Store, StoreError, to_json};
use crate::digest::blake3_bytes;
use crate::file::{at, put, read, sync};
use crate::signing::{Content, Kind, Piece, Ranges, Refusal, Subject, Verified};

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
#[derive(Debug, Clone)]
pub struct Snapshot {
    folder: PathBuf,
    /// Its memory, if that is verified as it is read.
    ranges: Option<Arc<Ranges>>,
}

/// How much of a snapshot's memory is verified before it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// All of it: it may be mapped.
    Whole,
    /// None of it, if it was not verified before: each range is, when it is read.
    Lazily,
}

/// What may be restored: both paths are those of verified files, but for a memory that has [ranges](Self::ranges).
impl Verified<Snapshot> {
    /// The guest's memory.
    pub fn memory(&self) -> PathBuf {
        self.folder.join(MEMORY)
    }

    /// The memory, if not all of it is verified yet: it may be read in this way only.
    pub fn ranges(&self) -> Option<Arc<Ranges>> {
        let ranges = self.ranges.as_ref();
        ranges.filter(|ranges| !ranges.is_whole()).cloned()
    }

    /// Whether a range of its memory did not verify.
    pub fn is_spoilt(&self) -> bool {
        self.ranges
            .as_ref()
            .is_some_and(|ranges| ranges.is_spoilt())
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
        let mut folder = SealedFolder {
            folder: draft,
            manifest: &manifest,
            memory: Memory::Whole,
        };
        let sealed = signing.seal(&draft.join(SEAL), &subject, &folder.pieces(), now);
        let epoch = sealed.map_err(|source| StoreError::Seal {
            subject: self.origin.subject(),
            source: Box::new(source),
        })?;
        let place = store.snapshot_folder(&self.origin);
        remove(&place)?;
        fs::rename(draft, &place).map_err(at("move", &place))?;
        sync(&store.snapshots_folder())?;
        signing.raise(&subject, epoch)?;
        store.trim_snapshots(&self.origin.template)?;
        folder.folder = &place;
        let verified = store.verify_snapshot(&folder, &self.origin, epoch, now);
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
        memory: Memory,
    ) -> Result<Option<Verified<Snapshot>>, StoreError> {
        match self.look(origin, tsc_khz, memory, Timestamp::now())? {
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
        memory: Memory,
    ) -> Result<Found, StoreError> {
        if let Some(snapshot) = self.snapshot(origin, tsc_khz, memory)? {
            return Ok(Found::Snapshot(snapshot));
        }
        let lock = self.snapshot_lock(origin)?;
        // Whoever had the lock has made it.
        match self.look(origin, tsc_khz, memory, Timestamp::now())? {
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

    fn snapshot_lock(&self, origin: &SnapshotOrigin) -> Result<Lock, StoreError> {
        let name = format!("snapshot-{}", origin.key());
        let path = self.root().join("locks").join(name);
        Ok(Lock::exclusive(&path).map_err(at("lock", &path))?)
    }

    fn look(
        &self,
        origin: &SnapshotOrigin,
        tsc_khz: u64,
        memory: Memory,
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
        let sealed = SealedFolder {
            folder: &folder,
            manifest: &json,
            memory,
        };
        match self.verify_snapshot(&sealed, origin, newest, now) {
            Ok(snapshot) => {
                let manifest: SnapshotManifest = super::templates::parse_bytes(&path, &json)?;
                let differs = manifest.tsc_khz.abs_diff(tsc_khz) > tsc_khz / TSC_TOLERANCE;
                Ok(if differs {
                    Look::None
                } else {
                    Look::Usable(snapshot)
                })
            }
            Err(reason) if reason.is_of_the_host() => Err(origin.refused(reason)),
            Err(reason) => Ok(Look::Refused(reason)),
        }
    }

    fn verify_snapshot(
        &self,
        sealed: &SealedFolder<'_>,
        origin: &SnapshotOrigin,
        newest: u64,
        now: Timestamp,
    ) -> Result<Verified<Snapshot>, Refusal> {
        let (seal, subject) = (sealed.folder.join(SEAL), subject(origin));
        let (signing, pieces) = (self.signing(), sealed.pieces());
        let verified = signing.verify(&seal, &subject, &pieces, newest, now)?;
        let ranges = match sealed.memory {
            Memory::Whole => None,
            Memory::Lazily => signing.ranges(&seal, &subject, &pieces[MEMORY_PIECE])?,
        };
        let folder = sealed.folder.to_owned();
        Ok(verified.map(|()| Snapshot {
            folder,
            ranges: ranges.map(Arc::new),
        }))
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

    /// Removes a snapshot that turned out to be of no use; the next use makes another. One that does not verify is put aside.
    ///
    /// # Errors
    /// [`StoreError::File`].
    pub fn discard_snapshot(&self, origin: &SnapshotOrigin) -> Result<(), StoreError> {
        let folder = self.snapshot_folder(origin);
        let found = identity(&folder);
        let _lock = self.snapshot_lock(origin)?;
        // While this waited somebody may have made another one, of which nothing is known.
        if identity(&folder) != found {
            return Ok(());
        }
        // With whatever counter: it is not used.
        match self.look(origin, 0, Memory::Whole, Timestamp::now())? {
            Look::Refused(reason) => self.put_aside(origin, &reason),
            Look::None | Look::Usable(_) => remove(&folder),
        }
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

/// A snapshot's folder, and how it is verified.
struct SealedFolder<'a> {
    folder: &'a Path,
    manifest: &'a [u8],
    memory: Memory,
}

/// Which of the pieces the memory is.
const MEMORY_PIECE: usize = 1;

impl<'a> SealedFolder<'a> {
    /// All that its seal covers.
    fn pieces(&self) -> [Piece<'a>; 3] {
        let memory = Content::Ranged {
            file: self.folder.join(MEMORY),
            leaves: self.folder.join(LEAVES),
            lazily: self.memory == Memory::Lazily,
        };
        [
            Piece {
                name: "manifest",
                content: Content::Bytes(self.manifest),
            },
            Piece {
                name: MEMORY,
                content: memory,
            },
            Piece {
                name: STATE,
                content: Content::File(self.folder.join(STATE)),
            },
        ]
    }
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

/// What tells one folder from another in the same place: its inode, and when that was made. None: there is none.
fn identity(folder: &Path) -> Option<(u64, Option<SystemTime>)> {
    let found = fs::metadata(folder).ok()?;
    Some((found.ino(), found.created().ok()))
}
