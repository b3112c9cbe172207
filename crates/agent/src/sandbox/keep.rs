//! Snapshots of sandboxes that are kept on this host's disk, each in a folder of its name.
//!
//! ```text
//!   <folder>/snp-….new/   being made; removed when a service starts
//!   <folder>/snp-…/       memory, state, and about.json, which is written last
//! ```

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use firelane_model::id::SnapshotId;
use firelane_vmm::driver::{Machine, SnapshotFiles};
use firelane_wire::bus::SnapshotHere;
use firelane_wire::problem::{Code, Problem};
use serde::{Deserialize, Serialize};

use super::here::{Here, Made};
use crate::problem::internal;
use crate::workshop::BOOT_TIMEOUT;

/// What tells of a snapshot, beside its files.
const ABOUT: &str = "about.json";
/// End of the name of a folder that is being made.
const UNFINISHED: &str = ".new";
/// Unit of `st_blocks`. Source: POSIX, sys/stat.h; on Linux it is always this.
const BLOCK_BYTES: u64 = 512;

/// The folder of all snapshots.
pub(super) struct Keep {
    folder: PathBuf,
}

/// A snapshot that is whole.
#[derive(Clone)]
pub(super) struct Kept {
    about: About,
    folder: PathBuf,
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
}

impl Keep {
    pub(super) fn new(folder: PathBuf) -> Keep {
        Keep { folder }
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
    let about = serde_json::from_slice(&fs::read(folder.join(ABOUT))?)?;
    Ok(Kept {
        about,
        folder: folder.to_owned(),
    })
}

fn files_in(folder: &Path) -> SnapshotFiles {
    SnapshotFiles {
        memory: folder.join("memory"),
        state: folder.join("state"),
    }
}

impl Kept {
    pub(super) fn files(&self) -> SnapshotFiles {
        files_in(&self.folder)
    }

    /// What a clone of it is made of.
    pub(super) fn made(&self, here: &Here) -> Result<Made, Problem> {
        if !self.about.rootfs.as_ref().is_none_or(|path| path.exists()) {
            let cause = format!(
                "the template {} that {} was made with is not on this host any more",
                self.about.template, self.about.id
            );
            return Err(Problem::new(Code::Conflict, cause)
                .with_remedy("make a sandbox of the present template"));
        }
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

    /// Its machine, without a name.
    pub(super) fn machine(&self) -> Machine {
        let About {
            kernel,
            initrd,
            rootfs,
            memory_mib,
            vcpus,
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
        }
    }

    /// Refuses one that another VMM made.
    pub(super) fn check(&self, vmm: &str) -> Result<(), Problem> {
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
        let SnapshotFiles { memory, state } = self.files();
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
            },
            folder: self.folder.clone(),
        })
    }

    /// Keeps it, for good: it survives a sudden end of the host.
    pub(super) fn keep(self, saved: &Kept) -> io::Result<Kept> {
        self.files().flush()?;
        let mut about = File::create(self.folder.join(ABOUT))?;
        about.write_all(&serde_json::to_vec_pretty(&saved.about)?)?;
        about.sync_all()?;
        File::open(&self.folder)?.sync_all()?;
        fs::rename(&self.folder, &self.kept)?;
        if let Some(parent) = self.kept.parent() {
            File::open(parent)?.sync_all()?;
        }
        read(&self.kept)
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
