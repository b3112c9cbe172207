//! Snapshots of sandboxes that are kept on this host's disk, each in a folder of its name.
//!
//! ```text
//!   <folder>/snp-….new/   being made; removed when a service starts
//!   <folder>/snp-…/       memory, state, about.json, and the seal of all three
//! ```
//!
//! The seal also has the kernel, the initrd and the root file system that the snapshot was made with. Nothing is restored before
//! it is verified; what is refused stays where it is, because it is the tenant's to remove.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use firelane_image::signing::{
    Content, Kind, Piece, Refusal, SealError, Signing, Subject, Verified,
};
use firelane_image::{FileError, SnapshotOrigin};
use firelane_model::id::SnapshotId;
use firelane_vmm::driver::{DiskLimits, Machine, NetworkDevice, SnapshotFiles};
use firelane_wire::bus::SnapshotHere;
use firelane_wire::problem::{Code, Problem};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::here::{Here, Made};
use crate::problem::internal;
use crate::snapshot::file_name;
use crate::workshop::BOOT_TIMEOUT;

/// What tells of a snapshot, beside its files.
const ABOUT: &str = "about.json";
/// End of the name of a folder that is being made.
const UNFINISHED: &str = ".new";
/// Unit of `st_blocks`. Source: POSIX, sys/stat.h; on Linux it is always this.
const BLOCK_BYTES: u64 = 512;

const SEAL: &str = "seal.json";

/// The folder of all snapshots.
pub(super) struct Keep {
    folder: PathBuf,
    signing: Signing,
}

/// A snapshot that is whole.
#[derive(Clone)]
pub(super) struct Kept {
    about: About,
    /// The bytes that tell so.
    json: Vec<u8>,
    folder: PathBuf,
    /// That its files are as they were sealed. One that was just saved by this service, for forks, has no seal.
    proof: Option<Verified<()>>,
}

/// A snapshot that is being made. Dropped, it is removed.
pub(super) struct Draft {
    folder: PathBuf,
    kept: PathBuf,
}

/// What must be known to make a clone.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct About {
    id: SnapshotId,
    tenant: String,
    template: String,
    template_id: String,
    /// The VMM and the processor that it was made with.
    vmm: String,
    kernel: PathBuf,
    initrd: Option<PathBuf>,
    rootfs: Option<PathBuf>,
    memory_mib: u32,
    vcpus: u32,
    env: BTreeMap<String, String>,
    /// Whether the guest has a network device.
    #[serde(default)]
    network: bool,
}

/// Why a snapshot could not be kept.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeepError {
    /// Its files.
    #[error("cannot write the snapshot's files")]
    Files(#[from] io::Error),
    /// Its seal.
    #[error("cannot seal the snapshot")]
    Seal(#[from] SealError),
    /// What was seen.
    #[error("cannot remember the snapshot's epoch")]
    Epoch(#[from] FileError),
}

impl About {
    /// What its seal is of. `cpu` is what guests see: on the host that makes it, or on the one that verifies it.
    fn subject(&self, cpu: &str) -> Subject {
        Subject {
            kind: Kind::Kept,
            name: self.id.to_string(),
            origin: Some(SnapshotOrigin {
                cpu: cpu.to_owned(),
                initrd: self.initrd.as_deref().map(file_name).unwrap_or_default(),
                kernel: file_name(&self.kernel),
                memory_mib: self.memory_mib,
                template: self.template.clone(),
                template_id: self.template_id.clone(),
                vcpus: self.vcpus,
                vmm: self.vmm.clone(),
            }),
        }
    }
}

impl Keep {
    pub(super) fn new(folder: PathBuf, signing: Signing) -> Keep {
        Keep { folder, signing }
    }

    pub(super) fn signing(&self) -> &Signing {
        &self.signing
    }

    /// Makes the folder, and removes what was left half done.
    pub(super) fn sweep(&self) -> io::Result<()> {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700).create(&self.folder)?;
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let is_whole = entry.path().join(ABOUT).is_file();
            let name = entry.file_name();
            if name.to_string_lossy().ends_with(UNFINISHED) || !is_whole {
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(())
    }

    /// Room for a new one.
    pub(super) fn draft(&self, id: SnapshotId) -> io::Result<Draft> {
        let draft = Draft {
            folder: self.folder.join(format!("{id}{UNFINISHED}")),
            kept: self.folder.join(id.to_string()),
        };
        DirBuilder::new().mode(0o700).create(&draft.folder)?;
        Ok(draft)
    }

    /// One of this tenant.
    pub(super) fn find(&self, id: SnapshotId, tenant: &str) -> Result<Kept, Problem> {
        let folder = self.folder.join(id.to_string());
        match read(&folder) {
            Ok(kept) if kept.about.tenant == tenant => Ok(kept),
            Ok(_) => Err(Problem::not_found("snapshot", id)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(Problem::not_found("snapshot", id))
            }
            Err(error) => Err(internal(&error)),
        }
    }

    /// All that are whole. One that cannot be read is told in the log and left out.
    pub(super) fn list(&self) -> io::Result<Vec<SnapshotHere>> {
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if path.extension().is_some() {
                continue;
            }
            match read(&path) {
                Ok(kept) => all.push(kept.here()?),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "a snapshot cannot be read");
                }
            }
        }
        Ok(all)
    }

    /// Removes one; one that is not there is gone already.
    pub(super) fn remove(&self, id: SnapshotId) -> io::Result<()> {
        match fs::remove_dir_all(self.folder.join(id.to_string())) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

fn read(folder: &Path) -> io::Result<Kept> {
    let json = fs::read(folder.join(ABOUT))?;
    Ok(Kept {
        about: serde_json::from_slice(&json)?,
        json,
        folder: folder.to_owned(),
        proof: None,
    })
}

fn files_in(folder: &Path) -> SnapshotFiles {
    SnapshotFiles::new(folder.join("memory"), folder.join("state"))
}

impl Kept {
    pub(super) fn files(&self) -> SnapshotFiles {
        files_in(&self.folder)
    }

    /// What is restored: nothing, if it has changed since it was verified.
    pub(super) fn unchanged_files(&self) -> Result<SnapshotFiles, Problem> {
        match &self.proof {
            Some(proof) if !proof.is_unchanged(Timestamp::now()) => {
                Err(self.refused("it has changed since it was verified"))
            }
            _ => Ok(self.files()),
        }
    }

    /// What a clone of it is made of.
    pub(super) fn made(&self, here: &Here) -> Result<Made, Problem> {
        let mut env = self.about.env.clone();
        env.extend(here.request.env.clone());
        Ok(Made {
            machine: Machine {
                id: here.id.to_string(),
                ..self.machine()
            },
            env,
            template_id: self.about.template_id.clone(),
        })
    }

    /// The name of the template that it comes from.
    pub(super) fn template(&self) -> &str {
        &self.about.template
    }

    /// Its machine, without a name.
    pub(super) fn machine(&self) -> Machine {
        let About {
            kernel,
            initrd,
            rootfs,
            memory_mib,
            vcpus,
            network,
            ..
        } = self.about.clone();
        Machine {
            id: String::new(),
            kernel,
            initrd,
            rootfs,
            memory_mib,
            vcpus,
            boot_timeout: BOOT_TIMEOUT,
            snapshot: None,
            // Connected when a clone is made.
            network: network.then(NetworkDevice::unconnected),
            disk: DiskLimits::DEFAULT,
        }
    }

    /// Verifies all that it is made of; reads what was not verified since the host's boot, which takes about a second for each
    /// GiB. Refuses one that another VMM made.
    pub(super) fn verified(
        mut self,
        signing: &Signing,
        vmm: &str,
        cpu: &str,
    ) -> Result<Kept, Problem> {
        self.check(vmm)?;
        let subject = self.about.subject(cpu);
        let proof = signing
            .newest(&subject)
            .map_err(Refusal::from)
            .and_then(|newest| {
                let (seal, pieces) = (self.folder.join(SEAL), self.pieces());
                signing.verify(&seal, &subject, &pieces, newest, Timestamp::now())
            });
        match proof {
            Ok(proof) => self.proof = Some(proof),
            Err(reason) => {
                tracing::warn!(snapshot = %self.about.id, %reason, "a kept snapshot is refused");
                return Err(self.refused(&reason.to_string()));
            }
        }
        Ok(self)
    }

    fn refused(&self, reason: &str) -> Problem {
        let cause = format!("{} is refused: {reason}", self.about.id);
        Problem::new(Code::Conflict, cause).with_remedy("take a new snapshot")
    }

    /// All that its seal covers.
    fn pieces(&self) -> Vec<Piece<'_>> {
        let memory = Content::Ranged {
            file: self.files().memory,
            leaves: self.folder.join("memory.ranges"),
            lazily: false,
        };
        let whole = |path: &PathBuf| Content::File(path.clone());
        let content = [
            ("about", Some(Content::Bytes(&self.json))),
            ("initrd", self.about.initrd.as_ref().map(whole)),
            ("memory", Some(memory)),
            ("rootfs", self.about.rootfs.as_ref().map(whole)),
            ("state", Some(Content::File(self.files().state))),
            ("vmlinux", Some(whole(&self.about.kernel))),
        ];
        let pieces = content.into_iter().filter_map(|(name, content)| {
            let content = content?;
            Some(Piece { name, content })
        });
        pieces.collect()
    }

    fn check(&self, vmm: &str) -> Result<(), Problem> {
        if !self.about.rootfs.as_ref().is_none_or(|path| path.exists()) {
            let cause = format!(
                "the template {} that {} was made with is not on this host any more",
                self.about.template, self.about.id
            );
            return Err(Problem::new(Code::Conflict, cause)
                .with_remedy("make a sandbox of the present template"));
        }
        if self.about.vmm == vmm {
            return Ok(());
        }
        let cause = format!(
            "{} was taken with {}, this host has {vmm}",
            self.about.id, self.about.vmm
        );
        Err(Problem::new(Code::Conflict, cause).with_remedy("take a new snapshot"))
    }

    pub(super) fn here(&self) -> io::Result<SnapshotHere> {
        let SnapshotFiles { memory, state, .. } = self.files();
        let blocks = fs::metadata(memory)?.blocks() + fs::metadata(state)?.blocks();
        Ok(SnapshotHere {
            id: self.about.id,
            tenant: self.about.tenant.clone(),
            template: self.about.template.clone(),
            size_bytes: blocks * BLOCK_BYTES,
        })
    }
}

impl Draft {
    pub(super) fn files(&self) -> SnapshotFiles {
        files_in(&self.folder)
    }

    /// What was saved, to be cloned while this draft is held.
    pub(super) fn saved(&self, id: SnapshotId, here: &Here, vmm: String) -> Result<Kept, Problem> {
        let Some(made) = here.made.get() else {
            return Err(here.gone());
        };
        let Machine {
            kernel,
            initrd,
            rootfs,
            memory_mib,
            vcpus,
            network,
            ..
        } = made.machine.clone();
        Ok(Kept {
            about: About {
                id,
                tenant: here.tenant.clone(),
                template: here.request.template.clone(),
                template_id: made.template_id.clone(),
                vmm,
                kernel,
                initrd,
                rootfs,
                memory_mib,
                vcpus,
                env: made.env.clone(),
                network: network.is_some(),
            },
            json: Vec::new(),
            folder: self.folder.clone(),
            proof: None,
        })
    }

    /// Keeps it, for good: it is sealed, and survives a sudden end of the host. `cpu` is what the VMM that saved it gave it.
    pub(super) fn keep(self, saved: Kept, signing: &Signing, cpu: &str) -> Result<Kept, KeepError> {
        self.files().flush()?;
        let json = serde_json::to_vec_pretty(&saved.about).map_err(io::Error::from)?;
        let mut about = File::create(self.folder.join(ABOUT))?;
        about.write_all(&json)?;
        about.sync_all()?;
        let subject = saved.about.subject(cpu);
        let saved = Kept { json, ..saved };
        let seal = self.folder.join(SEAL);
        let epoch = signing.seal(&seal, &subject, &saved.pieces(), Timestamp::now())?;
        File::open(&self.folder)?.sync_all()?;
        fs::rename(&self.folder, &self.kept)?;
        if let Some(parent) = self.kept.parent() {
            File::open(parent)?.sync_all()?;
        }
        signing.raise(&subject, epoch)?;
        Ok(read(&self.kept)?)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        match fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, "an unfinished snapshot is left to the next start");
            }
            _ => {}
        }
    }
}
