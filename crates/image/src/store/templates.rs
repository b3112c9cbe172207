//! Opening a store; finding, adding, checking and removing templates.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::blobs::{Blobs, Verification};
use super::lock::Lock;
use super::manifest::{Blob, Kernel, Manifest, SCHEMA};
use super::staging::{Staging, sweep};
use super::template::Template;
use crate::digest::blake3_bytes;
use crate::file::{FileError, at, make_folder, put, read, sync};
use crate::kernel::KernelSource;
use crate::signing::{Content, Kind, Piece, Refusal, SealError, Signing, Subject, remove_seal};

/// Initrds kept for other runners or kernels than the newest; each has the size of the runner plus a few MiB.
pub(super) const INITRDS_KEPT: usize = 8;

/// Why the store could not do something.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No template of that name has been built.
    #[error("no template {name:?} in the store (built: {})", if known.is_empty() { "none".to_owned() } else { known.join(", ") })]
    NotFound {
        /// The name asked for.
        name: String,
        /// Names that exist.
        known: Vec<String>,
    },
    /// The name cannot be that of a template.
    #[error(
        "{name:?} is not a template name: 1 to 64 of a-z, 0-9, '-', '_', '.', starting with a letter or digit"
    )]
    BadName {
        /// The name.
        name: String,
    },
    /// Another process is building this template.
    #[error("template {name:?} is being built")]
    Busy {
        /// The template.
        name: String,
    },
    /// A manifest cannot be understood.
    #[error("manifest {} cannot be read", path.display())]
    BadManifest {
        /// The manifest.
        path: PathBuf,
        /// Where the JSON is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// A manifest has another layout than this version knows.
    #[error("manifest {} has schema {schema}, this version reads {SCHEMA}", path.display())]
    Schema {
        /// The manifest.
        path: PathBuf,
        /// Its schema number.
        schema: u32,
    },
    /// A blob that a template needs is missing or has changed.
    #[error("blob {hash} of template {name:?} is {}", match state { Verification::Missing => "missing", _ => "damaged" })]
    Corrupt {
        /// The template.
        name: String,
        /// The blob.
        hash: String,
        /// What was found.
        state: Verification,
    },
    /// What is in the store is not used.
    #[error("{subject} is refused")]
    Refused {
        /// What is refused.
        subject: String,
        /// The template that has to be built again.
        template: String,
        /// Why.
        #[source]
        reason: Box<Refusal>,
    },
    /// What was made could not be sealed.
    #[error("cannot seal {subject}")]
    Seal {
        /// What was made.
        subject: String,
        /// Why.
        #[source]
        source: Box<SealError>,
    },
    /// A file operation failed.
    #[error(transparent)]
    File(#[from] FileError),
}

impl StoreError {
    /// What the user can do about it, where that is known.
    pub fn remedy(&self) -> Option<String> {
        match self {
            Self::NotFound { name, .. } => {
                Some(format!("build it: firelane template build {name}"))
            }
            Self::Schema { path, .. } | Self::BadManifest { path, .. } => {
                let name = path
                    .file_stem()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned();
                Some(format!(
                    "build it again: firelane template build {name} --refresh"
                ))
            }
            Self::Corrupt { name, .. } | Self::Refused { template: name, .. } => Some(format!(
                "build it again: firelane template build {name} --refresh"
            )),
            Self::Seal { source, .. } => source.remedy(),
            Self::Busy { .. } => Some("wait for the build to end".to_owned()),
            Self::File(FileError { source, path, .. })
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                Some(format!(
                    "make {} writable for this user, or set FIRELANE_HOME",
                    path.display()
                ))
            }
            Self::BadName { .. } | Self::File(_) => None,
        }
    }
}

/// A folder of templates.
#[derive(Debug, Clone)]
pub struct Store {
    pub(super) root: PathBuf,
    pub(super) blobs: Blobs,
    pub(super) signing: Signing,
}

impl Store {
    /// Where the store is unless told otherwise: `$FIRELANE_HOME`; else `/var/lib/firelane` for root, and for others
    /// `$XDG_DATA_HOME/firelane` or `~/.local/share/firelane`.
    pub fn default_root() -> PathBuf {
        let set = |name: &str| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let system = || PathBuf::from("/var/lib/firelane");
        if let Some(root) = set("FIRELANE_HOME") {
            return root;
        }
        if rustix::process::geteuid().is_root() {
            return system();
        }
        set("XDG_DATA_HOME")
            .map(|data| data.join("firelane"))
            .or_else(|| set("HOME").map(|home| home.join(".local/share/firelane")))
            .unwrap_or_else(system)
    }

    /// Opens the store at `root`, making its folders (0755) where they are missing, and sweeps what killed builds left.
    ///
    /// # Errors
    /// [`StoreError::File`] when a folder cannot be made or swept.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        for folder in [
            "blobs",
            "templates",
            "kernels",
            "initrds",
            "cache",
            "snapshots",
            "seals",
            "locks",
            "staging",
        ] {
            let folder = root.join(folder);
            if !folder.exists() {
                make_folder(&folder)?;
                open_to_all(root)?;
                open_to_all(&folder)?;
            }
        }
        // Links in the tree's own paths would otherwise end up in the tools' arguments.
        let root = root.canonicalize().map_err(at("resolve", root))?;
        let store = Self {
            blobs: Blobs::new(root.join("blobs")),
            signing: Signing::open(&root.join("signing"))?,
            root,
        };
        sweep(&store.root.join("staging"))?;
        Ok(store)
    }

    /// The folder of this store.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What this store signs and verifies with.
    pub fn signing(&self) -> &Signing {
        &self.signing
    }

    /// The template of that name, as its manifest describes it; [`Template::verified`] is what may be booted.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] names the templates that exist; [`StoreError::Corrupt`] when a blob is missing or has another size
    /// than recorded.
    pub fn get(&self, name: &str) -> Result<Template, StoreError> {
        check_name(name)?;
        let path = self.manifest_path(name);
        if !path.exists() {
            return Err(StoreError::NotFound {
                name: name.to_owned(),
                known: self.names()?,
            });
        }
        let template = self.read_template(name)?;
        for blob in template.manifest.blobs() {
            if !self.blobs.has(blob) {
                let state = if self.blobs.path(blob).exists() {
                    Verification::Damaged
                } else {
                    Verification::Missing
                };
                return Err(StoreError::Corrupt {
                    name: name.to_owned(),
                    hash: blob.hash.clone(),
                    state,
                });
            }
        }
        Ok(template)
    }

    /// All templates, by name.
    ///
    /// # Errors
    /// As [`Store::get`], for the first manifest that cannot be read.
    pub fn list(&self) -> Result<Vec<Template>, StoreError> {
        self.names()?
            .iter()
            .map(|name| self.read_template(name))
            .collect()
    }

    /// Removes a template and the blobs that no other one needs. Returns the bytes freed.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Busy`] while the template is being built.
    pub fn remove(&self, name: &str) -> Result<u64, StoreError> {
        check_name(name)?;
        let lock = self.lock_path(name);
        let Some(_building) = Lock::try_exclusive(&lock).map_err(at("lock", &lock))? else {
            return Err(StoreError::Busy {
                name: name.to_owned(),
            });
        };
        let _alone = self.alone()?;
        let path = self.manifest_path(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(StoreError::NotFound {
                name: name.to_owned(),
                known: self.names()?,
            }),
            done => {
                done.map_err(at("remove", &path))?;
                self.free()
            }
        }
    }

    /// Hashes every blob of a template again.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] names the first blob that is not what the manifest says.
    pub fn verify(&self, template: &Template) -> Result<(), StoreError> {
        for blob in template.manifest.blobs() {
            match self.blobs.verify(blob)? {
                Verification::Intact => {}
                state => {
                    let name = template.manifest.name.clone();
                    return Err(StoreError::Corrupt {
                        name,
                        hash: blob.hash.clone(),
                        state,
                    });
                }
            }
        }
        Ok(())
    }

    pub(crate) fn staging(&self) -> Result<Staging, StoreError> {
        let root = self.root.join("staging");
        sweep(&root)?;
        Ok(Staging::create(&root)?)
    }

    pub(crate) fn cache(&self) -> PathBuf {
        self.root.join("cache")
    }

    /// Held during a build of that name. `None` while another process builds it.
    pub(crate) fn try_build_lock(&self, name: &str) -> Result<Option<Lock>, StoreError> {
        check_name(name)?;
        let path = self.lock_path(name);
        Ok(Lock::try_exclusive(&path).map_err(at("lock", &path))?)
    }

    /// As [`Store::try_build_lock`], but waits.
    pub(crate) fn build_lock(&self, name: &str) -> Result<Lock, StoreError> {
        check_name(name)?;
        let path = self.lock_path(name);
        Ok(Lock::exclusive(&path).map_err(at("lock", &path))?)
    }

    /// The kernel from that source which templates share, if it is there and verifies. One that is refused is told in the log.
    pub(crate) fn kernel(&self, source: KernelSource) -> Result<Option<Kernel>, StoreError> {
        let (key, path) = (source.key(), self.kernel_path(&source.key()));
        let subject = kernel_subject(&key);
        let newest = self.signing.epochs.newest(subject.kind, &key)?;
        if !path.exists() {
            return Ok(None);
        }
        let json = read(&path)?;
        let kernel: Kernel = parse_bytes(&path, &json)?;
        let files = self.kernel_files(&kernel);
        let pieces = pieces(&json, &files);
        let seal = self.seal_path(&json);
        let verified = self
            .signing
            .verify(&seal, &subject, &pieces, newest, Timestamp::now());
        match verified {
            Ok(_) => Ok(Some(kernel)),
            Err(reason) => {
                tracing::warn!(kernel = key, %reason, "the kernel of the store is refused, and is made again");
                Ok(None)
            }
        }
    }

    /// Held while the kernel from that source is being made: a build waits for no compilation whose result it does not use.
    pub(crate) fn try_kernel_lock(&self, source: KernelSource) -> Result<Option<Lock>, StoreError> {
        let path = self.kernel_lock_path(source);
        Ok(Lock::try_exclusive(&path).map_err(at("lock", &path))?)
    }

    /// As [`Store::try_kernel_lock`], but waits.
    pub(crate) fn kernel_lock(&self, source: KernelSource) -> Result<Lock, StoreError> {
        let path = self.kernel_lock_path(source);
        Ok(Lock::exclusive(&path).map_err(at("lock", &path))?)
    }

    /// Adds the kernel from that source, as two files on the store's file system, in place of any from it before.
    pub(crate) fn add_kernel(
        &self,
        source: KernelSource,
        files: KernelFiles<'_>,
    ) -> Result<Kernel, StoreError> {
        let _shared = self.shared()?;
        let kernel = Kernel {
            version: files.version,
            package: files.package,
            vmlinux: self.blobs.add(files.vmlinux)?,
            modules: self.blobs.add(files.modules)?,
        };
        let key = source.key();
        let subject = kernel_subject(&key);
        let files = self.kernel_files(&kernel);
        self.publish(&self.kernel_path(&key), &kernel, &subject, &files)?;
        for other in self.kernel_keys()? {
            // Those of Debian's kernel begin like those of the small one.
            if source == KernelSource::Small && other.starts_with(&source.prefix()) && other != key
            {
                let path = self.kernel_path(&other);
                fs::remove_file(&path).map_err(at("remove", &path))?;
            }
        }
        Ok(kernel)
    }

    /// Adds the root file system at `rootfs` and a manifest that `describe` makes from its blob.
    pub(crate) fn add(
        &self,
        rootfs: &Path,
        describe: impl FnOnce(Blob) -> Manifest,
    ) -> Result<Template, StoreError> {
        let _shared = self.shared()?;
        let manifest = describe(self.blobs.add(rootfs)?);
        let subject = template_subject(&manifest.name);
        let path = self.manifest_path(&manifest.name);
        let files = self.template_files(&manifest);
        let (json, newest) = self.publish(&path, &manifest, &subject, &files)?;
        Ok(Template {
            store: self.clone(),
            name: manifest.name.clone(),
            manifest,
            json,
            newest,
        })
    }

    /// Frees what a replaced manifest left behind, unless somebody is adding something right now.
    pub(crate) fn collect(&self) -> Result<(), StoreError> {
        let path = self.root.join("locks/store");
        if let Some(_alone) = Lock::try_exclusive(&path).map_err(at("lock", &path))? {
            self.free()?;
        }
        Ok(())
    }

    fn free(&self) -> Result<u64, StoreError> {
        let mut used = BTreeSet::new();
        for template in self.list()? {
            used.extend(template.manifest.blobs().map(|blob| blob.hash.clone()));
        }
        // The kernels go with the last template.
        let last = used.is_empty();
        for key in self.kernel_keys()? {
            let path = self.kernel_path(&key);
            if last {
                fs::remove_file(&path).map_err(at("remove", &path))?;
            } else {
                let kernel: Kernel = parse(&path)?;
                used.extend([kernel.vmlinux.hash, kernel.modules.hash]);
            }
        }
        self.free_seals()?;
        let freed = self.blobs.keep_only(&used)? + self.keep_snapshots_of(&self.list()?)?;
        Ok(freed + self.trim_initrds(if used.is_empty() { 0 } else { INITRDS_KEPT })?)
    }

    pub(super) fn trim_initrds(&self, keep: usize) -> Result<u64, StoreError> {
        let folder = self.root.join("initrds");
        let mut files = Vec::new();
        for entry in fs::read_dir(&folder).map_err(at("list", &folder))? {
            let entry = entry.map_err(at("list", &folder))?;
            let meta = entry.metadata().map_err(at("read", &entry.path()))?;
            files.push((
                meta.modified().map_err(at("read", &entry.path()))?,
                entry.path(),
                meta.len(),
            ));
        }
        files.sort();
        let mut freed = 0;
        let surplus = files.len().saturating_sub(keep);
        for (_, path, size) in files.into_iter().take(surplus) {
            // Another process may trim at the same time.
            if fs::remove_file(&path).is_ok() {
                freed += size;
            }
        }
        Ok(freed)
    }

    /// Removes the seals of manifests that are gone.
    fn free_seals(&self) -> Result<(), StoreError> {
        let mut used = BTreeSet::new();
        let templates = self.names()?.into_iter();
        let kernels = self.kernel_keys()?.into_iter();
        let paths = templates
            .map(|name| self.manifest_path(&name))
            .chain(kernels.map(|key| self.kernel_path(&key)));
        for path in paths {
            used.insert(self.seal_path(&read(&path)?));
        }
        let folder = self.root.join("seals");
        for entry in fs::read_dir(&folder).map_err(at("list", &folder))? {
            let path = entry.map_err(at("list", &folder))?.path();
            if path.extension().is_none() && !used.contains(&path) {
                remove_seal(&path)?;
            }
        }
        Ok(())
    }

    fn read_template(&self, name: &str) -> Result<Template, StoreError> {
        // Before the manifest: one that replaces it meanwhile makes it no older than it was.
        let newest = self.signing.epochs.newest(Kind::Template, name)?;
        let path = self.manifest_path(name);
        let json = read(&path)?;
        Ok(Template {
            store: self.clone(),
            name: name.to_owned(),
            manifest: read_manifest(&path, &json)?,
            json,
            newest,
        })
    }

    fn names(&self) -> Result<Vec<String>, StoreError> {
        self.names_in("templates")
    }

    /// The kernels there are, by [`KernelSource::key`].
    pub(super) fn kernel_keys(&self) -> Result<Vec<String>, StoreError> {
        self.names_in("kernels")
    }

    /// Names of the JSON files in a folder of the store.
    fn names_in(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        let folder = self.root.join(folder);
        let mut names = Vec::new();
        for entry in fs::read_dir(&folder).map_err(at("list", &folder))? {
            let name = entry.map_err(at("list", &folder))?.file_name();
            names.extend(
                name.to_str()
                    .and_then(|name| name.strip_suffix(".json"))
                    .map(str::to_owned),
            );
        }
        names.sort();
        Ok(names)
    }

    /// Puts a manifest into place, sealed together with the files that it describes. Returns its bytes and its epoch.
    fn publish(
        &self,
        path: &Path,
        value: &impl Serialize,
        subject: &Subject,
        files: &[NamedFile],
    ) -> Result<(Vec<u8>, u64), StoreError> {
        let json = to_json(value);
        let seal = self.seal_path(&json);
        let sealed = self
            .signing
            .seal(&seal, subject, &pieces(&json, files), Timestamp::now());
        let epoch = sealed.map_err(|source| StoreError::Seal {
            subject: format!("{} {:?}", subject.kind.name(), subject.name),
            source: Box::new(source),
        })?;
        self.place(path, &json, 0o644)?;
        self.signing.raise(subject, epoch)?;
        Ok((json, epoch))
    }

    pub(super) fn template_files(&self, manifest: &Manifest) -> [NamedFile; 3] {
        let kernel = &manifest.kernel;
        [
            ("modules", self.blobs.path(&kernel.modules)),
            ("rootfs", self.blobs.path(&manifest.rootfs)),
            ("vmlinux", self.blobs.path(&kernel.vmlinux)),
        ]
    }

    fn kernel_files(&self, kernel: &Kernel) -> [NamedFile; 2] {
        [
            ("modules", self.blobs.path(&kernel.modules)),
            ("vmlinux", self.blobs.path(&kernel.vmlinux)),
        ]
    }

    /// Where the seal of a manifest with these bytes is.
    pub(super) fn seal_path(&self, json: &[u8]) -> PathBuf {
        self.root.join("seals").join(blake3_bytes(json))
    }

    /// Writes a file beside the store's others in one step.
    pub(super) fn place(&self, path: &Path, content: &[u8], mode: u32) -> Result<(), FileError> {
        let staging = Staging::create(&self.root.join("staging"))?;
        let draft = staging.path().join("draft");
        put(&draft, content, mode)?;
        sync(&draft)?;
        fs::rename(&draft, path).map_err(at("move into the store", path))?;
        path.parent().map_or(Ok(()), sync)
    }

    pub(super) fn manifest_path(&self, name: &str) -> PathBuf {
        self.root.join("templates").join(format!("{name}.json"))
    }

    pub(super) fn kernel_path(&self, key: &str) -> PathBuf {
        self.root.join("kernels").join(format!("{key}.json"))
    }

    fn kernel_lock_path(&self, source: KernelSource) -> PathBuf {
        self.root.join("locks").join(match source {
            KernelSource::Debian => "kernel",
            KernelSource::Networked => "kernel-network",
            KernelSource::Small => "kernel-small",
        })
    }

    fn lock_path(&self, name: &str) -> PathBuf {
        self.root.join("locks").join(format!("template-{name}"))
    }

    fn shared(&self) -> Result<Lock, StoreError> {
        let path = self.root.join("locks/store");
        Ok(Lock::shared(&path).map_err(at("lock", &path))?)
    }

    fn alone(&self) -> Result<Lock, StoreError> {
        let path = self.root.join("locks/store");
        Ok(Lock::exclusive(&path).map_err(at("lock", &path))?)
    }
}

/// What [`Store::add_kernel`] takes over.
pub(crate) struct KernelFiles<'a> {
    pub(crate) version: String,
    pub(crate) package: crate::recipe::debian::Package,
    pub(crate) vmlinux: &'a Path,
    pub(crate) modules: &'a Path,
}

/// A file that is sealed, by its name in the seal.
pub(super) type NamedFile = (&'static str, PathBuf);

/// All that a seal covers: the manifest and the files that it describes.
pub(super) fn pieces<'a>(json: &'a [u8], files: &[NamedFile]) -> Vec<Piece<'a>> {
    let manifest = Piece {
        name: "manifest",
        content: Content::Bytes(json),
    };
    let files = files.iter().map(|(name, path)| Piece {
        name,
        content: Content::File(path.clone()),
    });
    std::iter::once(manifest).chain(files).collect()
}

pub(super) fn template_subject(name: &str) -> Subject {
    Subject {
        kind: Kind::Template,
        name: name.to_owned(),
        origin: None,
    }
}

fn kernel_subject(key: &str) -> Subject {
    Subject {
        kind: Kind::Kernel,
        name: key.to_owned(),
        origin: None,
    }
}

/// VMMs run under other uids than the store's owner: they read what is here, whatever umask made it.
fn open_to_all(folder: &Path) -> Result<(), FileError> {
    fs::set_permissions(folder, Permissions::from_mode(0o755))
        .map_err(at("set the mode of", folder))
}

fn check_name(name: &str) -> Result<(), StoreError> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let fine = name.len() <= 64
        && name.bytes().next().is_some_and(plain)
        && name
            .bytes()
            .all(|byte| plain(byte) || b"-_.".contains(&byte));
    if fine {
        Ok(())
    } else {
        Err(StoreError::BadName {
            name: name.to_owned(),
        })
    }
}

fn read_manifest(path: &Path, json: &[u8]) -> Result<Manifest, StoreError> {
    #[derive(serde::Deserialize)]
    struct Head {
        schema: u32,
    }
    let head: Head = parse_bytes(path, json)?;
    if head.schema != SCHEMA {
        return Err(StoreError::Schema {
            path: path.to_owned(),
            schema: head.schema,
        });
    }
    parse_bytes(path, json)
}

fn parse<T: DeserializeOwned>(path: &Path) -> Result<T, StoreError> {
    parse_bytes(path, &read(path)?)
}

pub(super) fn parse_bytes<T: DeserializeOwned>(path: &Path, json: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(json).map_err(|source| StoreError::BadManifest {
        path: path.to_owned(),
        source,
    })
}

/// A manifest as it is stored.
pub(super) fn to_json(value: &impl Serialize) -> Vec<u8> {
    let mut json = serde_json::to_vec_pretty(value).expect("strings and numbers always serialise");
    json.push(b'\n');
    json
}
