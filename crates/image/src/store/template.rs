//! One template: what is recorded about it, and, once that and its files are verified, what boots.

use std::path::{Path, PathBuf};

use jiff::Timestamp;

use firelane_guest_proto::Tier;

use super::manifest::{Blob, Manifest};
use super::templates::{INITRDS_KEPT, Store, StoreError, pieces, template_subject};
use crate::digest::{blake3_bytes, blake3_file};
use crate::file::{at, read};
use crate::initrd;
use crate::signing::{Stamp, Verified};

/// A template in a store, as its manifest describes it. What boots is [`Template::verified`].
#[derive(Debug, Clone)]
pub struct Template {
    pub(super) store: Store,
    /// What it was found by; the manifest may say something else, and is refused then.
    pub(super) name: String,
    pub(super) manifest: Manifest,
    /// The manifest's bytes.
    pub(super) json: Vec<u8>,
    /// The newest epoch of a template of this name that was seen before the manifest was read.
    pub(super) newest: u64,
}

impl Template {
    /// What is recorded about it.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Where a blob of it is, for people to look at: nothing says that it is as it was.
    pub fn location(&self, blob: &Blob) -> PathBuf {
        self.store.blobs.path(blob)
    }

    /// The template, once its seal and its files are verified. Files that have not changed since they were verified are not
    /// read again; others are, which takes about a second for each GiB.
    ///
    /// # Errors
    /// [`StoreError::Refused`].
    pub fn verified(&self) -> Result<Verified<Template>, StoreError> {
        self.verified_at(Timestamp::now())
    }

    pub(super) fn verified_at(&self, now: Timestamp) -> Result<Verified<Template>, StoreError> {
        let name = &self.name;
        let (store, subject) = (&self.store, template_subject(name));
        let files = store.template_files(&self.manifest);
        let (seal, pieces) = (store.seal_path(&self.json), pieces(&self.json, &files));
        let verified = store
            .signing
            .verify(&seal, &subject, &pieces, self.newest, now);
        let verified = verified.map_err(|reason| StoreError::Refused {
            subject: format!("template {name:?}"),
            template: name.clone(),
            reason: Box::new(reason),
        })?;
        Ok(verified.map(|()| self.clone()))
    }
}

/// What may be booted: every path is that of a verified file.
impl Verified<Template> {
    /// The root file system: an uncompressed, read-only erofs image.
    pub fn rootfs(&self) -> PathBuf {
        self.store.blobs.path(&self.manifest.rootfs)
    }

    /// The kernel: an uncompressed ELF file with a PVH entry.
    pub fn vmlinux(&self) -> PathBuf {
        self.store.blobs.path(&self.manifest.kernel.vmlinux)
    }

    /// The kernel modules as a cpio archive.
    pub fn modules(&self) -> PathBuf {
        self.store.blobs.path(&self.manifest.kernel.modules)
    }

    /// An initrd with the program at `runner` as `/init` and this template's modules: made on first use, then kept,
    /// named by the hash of all that is in it. Its layout is described in the `initrd` module. One that is not what these
    /// make is made again.
    ///
    /// # Errors
    /// [`StoreError::File`] when the runner cannot be read or the store not written.
    pub fn initrd(&mut self, runner: &Path) -> Result<PathBuf, StoreError> {
        self.initrd_of_tier(runner, self.manifest.seccomp)
    }

    /// The same, where programs may make the system calls of `tier`, and not those of the template's own.
    ///
    /// # Errors
    /// As [`Verified::initrd`].
    pub fn initrd_of_tier(&mut self, runner: &Path, tier: Tier) -> Result<PathBuf, StoreError> {
        let (runner_hash, _) = blake3_file(runner).map_err(at("read", runner))?;
        let key = format!(
            "{} {runner_hash} {tier} {}",
            initrd::LAYOUT,
            self.manifest.kernel.modules.hash
        );
        let key = blake3_bytes(key.as_bytes());
        let store = self.store.clone();
        let path = store.root.join("initrds").join(format!("{key}.cpio"));
        let stamp = store.signing.check_made(&path, &key, || {
            initrd::assemble(&read(runner)?, tier, &read(&self.modules())?)
                .map_err(at("pack", runner))
        })?;
        let stamp = match stamp {
            Some(stamp) => stamp,
            None => {
                let initrd = initrd::assemble(&read(runner)?, tier, &read(&self.modules())?)
                    .map_err(at("pack", runner))?;
                store.place(&path, &initrd, 0o444)?;
                store.trim_initrds(INITRDS_KEPT)?;
                Stamp::of(&path).map_err(at("read", &path))?
            }
        };
        self.add(path.clone(), stamp);
        Ok(path)
    }
}
