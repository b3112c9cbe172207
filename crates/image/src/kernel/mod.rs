//! The guest kernel: `vmlinux` and an archive of the modules a guest needs. Debian's cloud kernel is taken apart into these; the
//! small kernel is compiled and has no modules.

pub(crate) mod bzimage;
pub(crate) mod modules;
pub(crate) mod small;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

pub use bzimage::BzImageError;
pub use modules::ModuleError;

use crate::cpio::Archive;
use crate::file::{FileError, at, read};
use crate::recipe::debian::SUITE;
use crate::tool::ToolError;
use crate::tree::unpack::UnpackError;

/// The package that depends on the current cloud kernel.
pub(crate) const PACKAGE: &str = "linux-image-cloud-amd64";
/// Small packages that satisfy what the kernel's package depends on, in place of much larger defaults.
pub(crate) const SMALL_DEPENDENCIES: &[&str] = &["tiny-initramfs", "usr-is-merged"];

/// Where the guest kernel comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum KernelSource {
    /// Debian's cloud kernel, as it is, with its modules.
    #[default]
    Debian,
    /// The same with the modules of network devices: for templates that have a network, whichever is asked for.
    Networked,
    /// Compiled from Debian's source package with only what a guest needs, all of it built in.
    Small,
}

impl KernelSource {
    /// The source of a kernel that came out of the package `name`.
    pub(crate) fn of_package(name: &str) -> Self {
        if name == small::PACKAGE {
            Self::Small
        } else {
            Self::Debian
        }
    }

    /// Names the kernel in a store: what is made by another recipe has another name.
    pub(crate) fn key(self) -> String {
        match self {
            Self::Debian => SUITE.to_owned(),
            Self::Networked => format!("{SUITE}-network"),
            Self::Small => format!("{}{}", self.prefix(), small::recipe()),
        }
    }

    /// How the keys of this source begin, whatever the recipe.
    pub(crate) fn prefix(self) -> String {
        match self {
            Self::Debian | Self::Networked => self.key(),
            Self::Small => format!("{SUITE}-small-"),
        }
    }
}

/// Why the kernel could not be taken out of its package, or not be compiled.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The package holds no kernel where one is expected.
    #[error("no kernel in the packages fetched for {PACKAGE}")]
    NoKernel,
    /// The kernel image cannot be unpacked.
    #[error("cannot unpack the kernel image {}", path.display())]
    BzImage {
        /// The image.
        path: PathBuf,
        /// Why.
        #[source]
        source: BzImageError,
    },
    /// The modules a guest needs are not all there.
    #[error("cannot collect kernel modules")]
    Modules(#[from] ModuleError),
    /// The package of the source does not hold it.
    #[error("no kernel source in the packages fetched for {}", small::PACKAGE)]
    NoSource,
    /// The source cannot be unpacked.
    #[error("cannot unpack the kernel's source")]
    Unpack(#[from] UnpackError),
    /// Programs or headers that compile a kernel are not installed.
    #[error("not installed, but needed to compile a kernel: {}", names.join(", "))]
    Tools {
        /// The programs and headers.
        names: Vec<&'static str>,
        /// The Debian packages they are in.
        packages: Vec<&'static str>,
    },
    /// The source does not have these options, or not with these values.
    #[error("the kernel's source cannot be configured with {}", options.join(", "))]
    Options {
        /// Option and value, `n` for one that is to be off.
        options: Vec<String>,
    },
    /// The compilation failed.
    #[error("cannot compile the kernel")]
    Compile(#[source] ToolError),
    /// A file operation failed.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Which files of a kernel package are worth unpacking.
pub(crate) fn keep(path: &str) -> bool {
    path.starts_with("boot/vmlinuz-") || path.starts_with("usr/lib/modules/")
}

/// A kernel taken apart, or compiled.
pub(crate) struct Parts {
    pub(crate) version: String,
    pub(crate) vmlinux: Vec<u8>,
    pub(crate) modules: Vec<u8>,
}

/// Takes the kernel unpacked below `tree` apart.
pub(crate) fn take_apart(tree: &Path, source: KernelSource) -> Result<Parts, KernelError> {
    let boot = tree.join("boot");
    let version = names(&boot)?
        .into_iter()
        .find_map(|name| name.strip_prefix("vmlinuz-").map(str::to_owned))
        .ok_or(KernelError::NoKernel)?;
    let image = boot.join(format!("vmlinuz-{version}"));
    let vmlinux = bzimage::vmlinux(&read(&image)?).map_err(|source| KernelError::BzImage {
        path: image.clone(),
        source,
    })?;
    let mut wanted = modules::WANTED.to_vec();
    if source == KernelSource::Networked {
        wanted.extend(modules::NETWORK);
    }
    let modules = pack_modules(&tree.join("usr/lib/modules").join(&version), &wanted)?;
    Ok(Parts {
        version,
        vmlinux,
        modules,
    })
}

/// The archive of modules: `/modules/NN-name.ko` in load order, and that order in `/modules/order`.
fn pack_modules(folder: &Path, wanted: &[&str]) -> Result<Vec<u8>, KernelError> {
    let mut files = BTreeMap::new();
    find_modules(&folder.join("kernel"), &mut files)?;
    let available: BTreeSet<String> = files.keys().cloned().collect();
    let text = |name: &str| {
        read(&folder.join(name)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    };
    let builtin = modules::parse_builtin(&text("modules.builtin")?);
    let table = folder
        .join("modules.dep")
        .exists()
        .then(|| text("modules.dep"))
        .transpose()?;
    let table = table.map(|text| modules::parse_dep(&text));
    let mut contents: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut unreadable = None;
    let order = modules::load_order(wanted, &builtin, |name| {
        let Some(path) = files.get(name) else {
            return Ok(None);
        };
        if path.extension().is_none_or(|extension| extension != "ko") {
            return Err(ModuleError::Compressed {
                path: path.display().to_string(),
            });
        }
        let content = read(path).unwrap_or_else(|error| {
            unreadable = Some(error);
            Vec::new()
        });
        let needs = match &table {
            Some(table) => table.get(name).cloned().unwrap_or_default(),
            None => modules::modinfo_depends(name, &content, &available)?,
        };
        contents.insert(name.to_owned(), content);
        Ok(Some(needs))
    });
    if let Some(error) = unreadable {
        return Err(error.into());
    }
    let mut archive = Archive::default();
    let packed = || -> std::io::Result<Vec<u8>> {
        archive.folder("modules")?;
        let mut list = String::new();
        for (position, name) in order.iter().flatten().enumerate() {
            let file = format!("{position:02}-{name}.ko");
            archive.file(&format!("modules/{file}"), 0o644, &contents[name])?;
            list.push_str(&file);
            list.push('\n');
        }
        archive.file("modules/order", 0o644, list.as_bytes())?;
        archive.finish()
    }();
    order?;
    Ok(packed.map_err(at("pack modules of", folder))?)
}

fn find_modules(folder: &Path, found: &mut BTreeMap<String, PathBuf>) -> Result<(), FileError> {
    for name in names(folder)? {
        let path = folder.join(&name);
        if path.is_dir() {
            find_modules(&path, found)?;
        } else if name.contains(".ko") {
            found.insert(modules::name_of(&name), path);
        }
    }
    Ok(())
}

fn names(folder: &Path) -> Result<Vec<String>, FileError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(at("list", folder))? {
        names.push(
            entry
                .map_err(at("list", folder))?
                .file_name()
                .to_string_lossy()
                .into_owned(),
        );
    }
    names.sort();
    Ok(names)
}
