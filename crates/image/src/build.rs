//! Building a template: the steps and their order.

mod error;
mod kernel;

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use jiff::{Timestamp, Unit};

use crate::digest::blake3_bytes;
use crate::file::make_folder;
use crate::kernel::KernelSource;
use crate::progress::{Progress, Step};
use crate::recipe::debian::{Archive, Package};
use crate::recipe::definition::Definition;
use crate::recipe::resolve::{Resolved, resolve};
use crate::recipe::wheel::{Wheels, extract};
use crate::store::manifest::{Manifest, SCHEMA};
use crate::store::{Store, StoreError, Template};
use crate::tool::on_path;
use crate::tree::unpack::except;
use crate::tree::{bytecode, erofs, fixups};

pub use error::BuildError;

/// The programs a build runs, and the packages they are in on Debian and Ubuntu.
const TOOLS: &[(&str, &str)] = &[("mmdebstrap", "mmdebstrap"), ("mkfs.erofs", "erofs-utils")];
/// Disk space a build needs whatever it contains, and for each package named, in MiB. Downloads, the unpacked tree
/// twice and the image exist at the same time.
const SPACE_BASE_MIB: u64 = 1024;
const SPACE_PACKAGE_MIB: u64 = 64;

/// How to build.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Build even if the store has a template of the same definition, and look for newer packages.
    pub refresh: bool,
    /// A Debian mirror, or a line of sources.list, in place of the default. Unset: `$FIRELANE_DEBIAN_MIRROR`.
    pub mirror: Option<String>,
    /// A folder of files that need not be downloaded. Unset: `$FIRELANE_DOWNLOADS`.
    pub downloads: Option<PathBuf>,
    /// A folder for downloads kept between builds. Unset: below the store.
    pub cache: Option<PathBuf>,
    /// Where the kernel comes from. Unset: from where the template in the store has it, else [`KernelSource::default`].
    pub kernel: Option<KernelSource>,
}

/// Builds the template that `definition` describes, or takes it from the store when it has been built before and
/// [`Options::refresh`] is off. Builds of the same template wait for each other; the second finds the work done.
///
/// Blocks for seconds to minutes. The store changes only at the very end, in one step; a build that is killed leaves a
/// staging folder, which the next one sweeps.
///
/// # Errors
/// [`BuildError`] names the step and the subject, carries what a failed program said, and may know a remedy.
pub fn build(
    store: &Store,
    definition: &Definition,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Template, BuildError> {
    progress.step(Step::Prepare);
    if std::env::consts::ARCH != "x86_64" {
        return Err(BuildError::Architecture {
            arch: std::env::consts::ARCH,
        });
    }
    let resolved = resolve(definition)?;
    let asked = Timestamp::now();
    let _lock = match store.try_build_lock(&definition.name)? {
        Some(lock) => lock,
        None => {
            progress.message("waiting for another build of this template");
            store.build_lock(&definition.name)?
        }
    };
    let known = known(store, &definition.name);
    let source = options
        .kernel
        .or_else(|| {
            let kernel = &known.as_ref()?.manifest().kernel;
            Some(KernelSource::of_package(&kernel.package.name))
        })
        .unwrap_or_default();
    let source = match (source, &resolved.network) {
        (KernelSource::Small, Some(_)) => return Err(BuildError::NoDevices),
        (KernelSource::Debian, Some(_)) => KernelSource::Networked,
        (KernelSource::Networked, None) => KernelSource::Debian,
        (source, _) => source,
    };
    if let Some(template) = known.filter(|known| usable(known, &resolved, source, options, asked)) {
        match template.verified() {
            Ok(_) => return Ok(template),
            Err(error) => refused(&definition.name, &error),
        }
    }
    Build::new(store, definition, &resolved, source, options, progress)?.run()
}

/// The template that is there, if it can be read. Nothing but the choice of its kernel is taken from it before it is verified.
fn known(store: &Store, name: &str) -> Option<Template> {
    match store.get(name) {
        Ok(template) => Some(template),
        Err(StoreError::NotFound { .. }) => None,
        Err(error) => {
            refused(name, &error);
            None
        }
    }
}

fn refused(template: &str, error: &StoreError) {
    let reason = error.source().unwrap_or(error);
    tracing::warn!(template, %reason, "the template of the store is refused, and is built again");
}

/// Whether a template is of this definition and kernel, and new enough.
fn usable(
    template: &Template,
    resolved: &Resolved,
    source: KernelSource,
    options: &Options,
    asked: Timestamp,
) -> bool {
    let manifest = template.manifest();
    let fresh = !options.refresh
        || manifest
            .created
            .parse::<Timestamp>()
            .is_ok_and(|created| created >= asked);
    fresh && manifest.definition == identity(resolved, source)
}

/// Identifies a definition together with the kernel it is built with.
fn identity(resolved: &Resolved, source: KernelSource) -> String {
    let definition = resolved.hash();
    match source {
        KernelSource::Debian => definition,
        KernelSource::Networked | KernelSource::Small => {
            blake3_bytes(format!("{definition} {}", source.key()).as_bytes())
        }
    }
}

struct Build<'a> {
    store: &'a Store,
    definition: &'a Definition,
    resolved: &'a Resolved,
    source: KernelSource,
    refresh: bool,
    mirror: Option<String>,
    downloads: Option<PathBuf>,
    cache: PathBuf,
    progress: &'a dyn Progress,
}

impl<'a> Build<'a> {
    fn new(
        store: &'a Store,
        definition: &'a Definition,
        resolved: &'a Resolved,
        source: KernelSource,
        options: &Options,
        progress: &'a dyn Progress,
    ) -> Result<Self, BuildError> {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let mirror = set("FIRELANE_DEBIAN_MIRROR").and_then(|value| value.into_string().ok());
        let build = Self {
            store,
            definition,
            resolved,
            source,
            refresh: options.refresh,
            mirror: options.mirror.clone().or(mirror),
            downloads: options
                .downloads
                .clone()
                .or_else(|| set("FIRELANE_DOWNLOADS").map(PathBuf::from)),
            cache: options.cache.clone().unwrap_or_else(|| store.cache()),
            progress,
        };
        build.check_tools()?;
        build.check_space(SPACE_BASE_MIB + SPACE_PACKAGE_MIB * resolved.packages.len() as u64)?;
        Ok(build)
    }

    fn check_tools(&self) -> Result<(), BuildError> {
        match TOOLS.iter().find(|(program, _)| on_path(program).is_none()) {
            Some((program, package)) => Err(BuildError::MissingTool { program, package }),
            None => Ok(()),
        }
    }

    fn check_space(&self, needed_mib: u64) -> Result<(), BuildError> {
        let path = self.store.root();
        // A file system that cannot say is given the benefit of the doubt.
        let Ok(stat) = rustix::fs::statvfs(path) else {
            return Ok(());
        };
        let free_mib = stat.f_bavail.saturating_mul(stat.f_frsize) >> 20;
        if free_mib < needed_mib {
            return Err(BuildError::Space {
                path: path.to_owned(),
                needed_mib,
                free_mib,
            });
        }
        Ok(())
    }

    fn run(&self) -> Result<Template, BuildError> {
        self.progress.step(Step::Kernel);
        let kernel = self.kernel()?;
        let staging = self.store.staging()?;
        let tree = staging.path().join("tree");
        make_folder(&tree)?;
        let packages = self.packages(staging.path(), &tree)?;
        // This runs the tree's own interpreter, so it comes before anything that the definition puts there.
        self.progress.step(Step::Bytecode);
        bytecode::compile(&tree).map_err(BuildError::Bytecode)?;
        let wheels = self.wheels(staging.path(), &tree)?;
        self.progress.step(Step::FixUps);
        for (step, fix) in fixups::STEPS {
            self.progress.message(step);
            fix(&tree, self.resolved).map_err(|source| BuildError::FixUp { step, source })?;
        }
        fixups::final_modes(&tree).map_err(|source| BuildError::FixUp {
            step: "final modes",
            source,
        })?;
        self.progress.step(Step::Image);
        let image = staging.path().join("rootfs.erofs");
        erofs::make_image(&tree, &image).map_err(BuildError::Image)?;
        self.progress.step(Step::Store);
        let template = self.store.add(&image, |rootfs| {
            let mut manifest = Manifest {
                schema: SCHEMA,
                name: self.definition.name.clone(),
                description: self.definition.spec.description.clone(),
                id: String::new(),
                definition: identity(self.resolved, self.source),
                created: now(),
                rootfs,
                kernel,
                packages,
                wheels,
                env: self.resolved.env.clone(),
                memory_mib: self.resolved.memory_mib,
                seccomp: self.resolved.seccomp,
                network: self.resolved.network.clone(),
                warmup: self.resolved.warmup.clone(),
            };
            manifest.id = manifest.content_id();
            manifest
        })?;
        self.store.collect()?;
        Ok(template)
    }

    fn packages(&self, scratch: &Path, tree: &Path) -> Result<Vec<Package>, BuildError> {
        self.progress.step(Step::Packages);
        let mut left_out: Vec<String> = fixups::NEVER
            .iter()
            .map(|path| (*path).to_owned())
            .collect();
        left_out.extend(self.resolved.exclude.iter().cloned());
        self.archive(scratch)
            .fetch(&self.resolved.packages, tree, &except(&left_out))
            .map_err(|source| BuildError::Packages {
                template: self.definition.name.clone(),
                source: Box::new(source),
            })
    }

    fn wheels(&self, scratch: &Path, tree: &Path) -> Result<Vec<Package>, BuildError> {
        self.progress.step(Step::Wheels);
        let failed = |source| BuildError::Wheels {
            template: self.definition.name.clone(),
            source: Box::new(source),
        };
        let scratch = scratch.join("wheels");
        make_folder(&scratch)?;
        let cache = self.cache.join("wheels");
        let wheels = Wheels {
            cache: &cache,
            downloads: self.downloads.as_deref(),
            scratch: &scratch,
        };
        let mut taken = Vec::new();
        for wheel in &self.resolved.wheels {
            self.progress.message(&wheel.name);
            let path = wheels.find(wheel).map_err(failed)?;
            taken.push(extract(&path, wheel, tree).map_err(failed)?);
        }
        // Nothing of it is needed any more, and the image is about to be written.
        let _ = fs::remove_dir_all(&scratch);
        Ok(taken)
    }

    fn archive<'b>(&'b self, scratch: &'b Path) -> Archive<'b> {
        Archive {
            cache: &self.cache,
            mirror: self.mirror.as_deref(),
            scratch,
        }
    }
}

fn now() -> String {
    let now = Timestamp::now();
    now.round(Unit::Millisecond).unwrap_or(now).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_kernel_source_is_another_template() {
        let one = resolve(&Definition::builtin("base").unwrap()).unwrap();
        let two = resolve(&Definition::builtin("node").unwrap()).unwrap();
        // Templates from before there was a choice stay usable.
        assert_eq!(identity(&one, KernelSource::Debian), one.hash());
        let mut all: Vec<String> = [&one, &two]
            .into_iter()
            .flat_map(|resolved| {
                [KernelSource::Debian, KernelSource::Small].map(|source| identity(resolved, source))
            })
            .collect();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 4);
    }
}
