//! The initial RAM disk: the guest-runner as `/init`, the few files the kernel wants, and the modules.
//!
//! ```text
//! /dev  /dev/console (c 5 1)  /newroot  /proc  /sys   empty folders and the console node
//! /init                                               the runner, 0755
//! /seccomp                                            name of the tier of system calls
//! /modules/NN-name.ko, /modules/order                 joined archive
//! ```
//!
//! The kernel unpacks archives that follow each other (Documentation/driver-api/early-userspace/buffer-format.rst);
//! each is padded to 512 bytes.

use std::io;

use firelane_guest_proto::Tier;

use crate::cpio::Archive;

/// Changes whenever the layout does, so that no initrd of an older layout is taken from the cache.
pub(crate) const LAYOUT: &str = "initrd-2";

/// Joins `runner`, told which system calls programs may make, and an archive of modules.
pub(crate) fn assemble(runner: &[u8], tier: Tier, modules: &[u8]) -> io::Result<Vec<u8>> {
    let mut archive = Archive::default();
    archive.folder("dev")?;
    archive.character_device("dev/console", 0o600, (5, 1))?;
    archive.file("init", 0o755, runner)?;
    archive.file("seccomp", 0o444, format!("{tier}\n").as_bytes())?;
    for folder in ["newroot", "proc", "sys"] {
        archive.folder(folder)?;
    }
    let mut initrd = archive.finish()?;
    initrd.extend_from_slice(modules);
    Ok(initrd)
}
