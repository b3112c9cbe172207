//! The kernel of a template: taken from the store, or made first.

use std::collections::BTreeSet;
use std::path::Path;

use super::{Build, BuildError};
use crate::file::{make_folder, put};
use crate::kernel::{self, KernelError, KernelSource, Parts, small};
use crate::recipe::debian::Package;
use crate::store::KernelFiles;
use crate::store::manifest::Kernel;

impl Build<'_> {
    /// The kernel of the store, made first where it is missing or to be refreshed.
    pub(super) fn kernel(&self) -> Result<Kernel, BuildError> {
        let _lock = match self.store.try_kernel_lock(self.source)? {
            Some(lock) => lock,
            None => {
                self.progress
                    .message("waiting for another build of the kernel");
                self.store.kernel_lock(self.source)?
            }
        };
        let known = self.store.kernel(self.source)?;
        match known {
            Some(kernel) if !self.refresh => Ok(kernel),
            known => match self.source {
                KernelSource::Debian | KernelSource::Networked => self.debian_kernel(),
                KernelSource::Small => self.small_kernel(known),
            },
        }
    }

    fn debian_kernel(&self) -> Result<Kernel, BuildError> {
        let staging = self.store.staging()?;
        let tree = staging.path().join("tree");
        let wanted: Vec<&str> = [kernel::PACKAGE]
            .iter()
            .chain(kernel::SMALL_DEPENDENCIES)
            .copied()
            .collect();
        let packages = self.fetch_kernel(&wanted, staging.path(), &tree, &kernel::keep)?;
        let parts = kernel::take_apart(&tree, self.source)?;
        let package = named(packages, &format!("linux-image-{}", parts.version))
            .ok_or(KernelError::NoKernel)?;
        self.add_kernel(staging.path(), parts, package)
    }

    /// Compiles, unless `known` is of the newest source already.
    fn small_kernel(&self, known: Option<Kernel>) -> Result<Kernel, BuildError> {
        small::check_tools()?;
        self.check_space(small::SPACE_MIB)?;
        let staging = self.store.staging()?;
        let tree = staging.path().join("tree");
        self.progress.message("fetching the kernel's source");
        let packages = self.fetch_kernel(&[small::PACKAGE], staging.path(), &tree, &small::keep)?;
        let package = named(packages, small::PACKAGE).ok_or(KernelError::NoSource)?;
        if let Some(kernel) = known.filter(|known| known.package == package) {
            return Ok(kernel);
        }
        let parts = small::compile(&tree, &staging.path().join("source"), self.progress)?;
        self.add_kernel(staging.path(), parts, package)
    }

    fn fetch_kernel(
        &self,
        wanted: &[&str],
        scratch: &Path,
        tree: &Path,
        keep: &dyn Fn(&str) -> bool,
    ) -> Result<Vec<Package>, BuildError> {
        make_folder(tree)?;
        let wanted: BTreeSet<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
        self.archive(scratch)
            .fetch(&wanted, tree, keep)
            .map_err(|source| BuildError::KernelFetch(Box::new(source)))
    }

    fn add_kernel(
        &self,
        scratch: &Path,
        parts: Parts,
        package: Package,
    ) -> Result<Kernel, BuildError> {
        let (vmlinux, modules) = (scratch.join("vmlinux"), scratch.join("modules.cpio"));
        put(&vmlinux, &parts.vmlinux, 0o444)?;
        put(&modules, &parts.modules, 0o444)?;
        let files = KernelFiles {
            version: parts.version,
            package,
            vmlinux: &vmlinux,
            modules: &modules,
        };
        Ok(self.store.add_kernel(self.source, files)?)
    }
}

fn named(packages: Vec<Package>, name: &str) -> Option<Package> {
    packages.into_iter().find(|package| package.name == name)
}
