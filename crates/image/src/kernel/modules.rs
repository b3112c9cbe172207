//! Which kernel modules a guest needs, and in which order they load.
//!
//! A package straight from the archive has no `modules.dep` (depmod writes that on the installed machine), so
//! dependencies are read where depmod reads them: the `depends=` and `softdep=` entries of each module's `.modinfo` section.
//! Where the tree does have a modules.dep(5) it is used instead.

use std::collections::{BTreeMap, BTreeSet};

/// Modules wanted in the guest, whichever VMM runs it: transports, disk, console, entropy, vsock, and
/// the two file systems of its root.
pub(crate) const WANTED: &[&str] = &[
    "virtio_mmio",
    "virtio_pci",
    "virtio_blk",
    "virtio_console",
    "virtio_rng",
    "vsock",
    "vmw_vsock_virtio_transport",
    "erofs",
    "overlay",
];

/// What a guest with a network needs beside.
pub(crate) const NETWORK: &[&str] = &["virtio_net"];

/// Why no load order could be made.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum ModuleError {
    /// A module is neither a file nor built into the kernel.
    #[error("kernel module {name} does not exist{}", needed_by.as_ref().map(|by| format!(" (needed by {by})")).unwrap_or_default())]
    Missing {
        /// The module's name, with underscores.
        name: String,
        /// The module that depends on it, if it was not asked for directly.
        needed_by: Option<String>,
    },
    /// Modules depend on each other in a circle.
    #[error("kernel module {name} depends on itself")]
    Cycle {
        /// One module of the circle.
        name: String,
    },
    /// The file is not a 64-bit little-endian ELF module.
    #[error("kernel module {name} is not a readable ELF file")]
    NotElf {
        /// The module's name.
        name: String,
    },
    /// The module is stored compressed.
    #[error("kernel module {path} is compressed, which is not supported")]
    Compressed {
        /// Its path below `lib/modules/<version>`.
        path: String,
    },
}

/// Module name -> names it needs loaded first.
pub(crate) type Dependencies = BTreeMap<String, Vec<String>>;

/// The kernel treats `-` and `_` in module names alike; `_` is the canonical form.
pub(crate) fn name_of(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split(".ko").next().unwrap_or(file).replace('-', "_")
}

/// Reads modules.dep(5): `path: path path ...`, the right side in no promised order.
pub(crate) fn parse_dep(text: &str) -> Dependencies {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(module, needs)| {
            (
                name_of(module),
                needs.split_whitespace().map(name_of).collect(),
            )
        })
        .collect()
}

/// Names of the built-in modules, from `modules.builtin` (one path a line).
pub(crate) fn parse_builtin(text: &str) -> BTreeSet<String> {
    text.lines()
        .filter(|line| !line.is_empty())
        .map(name_of)
        .collect()
}

/// What a module's own `.modinfo` says it needs. Soft dependencies (`pre:`) count where a module of that name
/// is in `available`: they often name an alias that the kernel resolves from built-in code.
pub(crate) fn modinfo_depends(
    name: &str,
    elf: &[u8],
    available: &BTreeSet<String>,
) -> Result<Vec<String>, ModuleError> {
    let section = elf_section(elf, b".modinfo").ok_or_else(|| ModuleError::NotElf {
        name: name.to_owned(),
    })?;
    let mut needs = Vec::new();
    for entry in section.split(|byte| *byte == 0) {
        let Ok(entry) = std::str::from_utf8(entry) else {
            continue;
        };
        if let Some(list) = entry.strip_prefix("depends=") {
            needs.extend(list.split(',').filter(|name| !name.is_empty()).map(name_of));
        } else if let Some(list) = entry.strip_prefix("softdep=") {
            let before = list
                .split_whitespace()
                .skip_while(|word| *word != "pre:")
                .skip(1);
            let before = before.take_while(|word| !word.ends_with(':')).map(name_of);
            needs.extend(before.filter(|name| available.contains(name)));
        }
    }
    Ok(needs)
}

/// Load order of `wanted` and everything below it: each module after all it needs, built-in ones left out.
///
/// `needs_of` answers the needs of a module that exists as a file, or `None` where there is no such file.
pub(crate) fn load_order(
    wanted: &[&str],
    builtin: &BTreeSet<String>,
    mut needs_of: impl FnMut(&str) -> Result<Option<Vec<String>>, ModuleError>,
) -> Result<Vec<String>, ModuleError> {
    struct Walk<'a, F> {
        builtin: &'a BTreeSet<String>,
        needs_of: F,
        open: BTreeSet<String>,
        order: Vec<String>,
    }
    impl<F: FnMut(&str) -> Result<Option<Vec<String>>, ModuleError>> Walk<'_, F> {
        fn visit(&mut self, name: &str, needed_by: Option<&str>) -> Result<(), ModuleError> {
            if self.builtin.contains(name) || self.order.iter().any(|done| done == name) {
                return Ok(());
            }
            if !self.open.insert(name.to_owned()) {
                return Err(ModuleError::Cycle {
                    name: name.to_owned(),
                });
            }
            let needs = (self.needs_of)(name)?.ok_or_else(|| ModuleError::Missing {
                name: name.to_owned(),
                needed_by: needed_by.map(str::to_owned),
            })?;
            for need in &needs {
                self.visit(need, Some(name))?;
            }
            self.order.push(name.to_owned());
            Ok(())
        }
    }
    let mut walk = Walk {
        builtin,
        needs_of: &mut needs_of,
        open: BTreeSet::new(),
        order: Vec::new(),
    };
    for name in wanted {
        walk.visit(name, None)?;
    }
    Ok(walk.order)
}

/// The bytes of a named section of a 64-bit little-endian ELF file (elf(5)).
fn elf_section<'a>(elf: &'a [u8], wanted: &[u8]) -> Option<&'a [u8]> {
    fn number(elf: &[u8], at: usize, width: usize) -> Option<usize> {
        let mut bytes = [0; 8];
        bytes
            .get_mut(..width)?
            .copy_from_slice(elf.get(at..at.checked_add(width)?)?);
        usize::try_from(u64::from_le_bytes(bytes)).ok()
    }
    if elf.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let (table, entry_size) = (number(elf, 0x28, 8)?, number(elf, 0x3a, 2)?);
    let (count, names_index) = (number(elf, 0x3c, 2)?, number(elf, 0x3e, 2)?);
    let section = |index: usize| -> Option<(usize, &'a [u8])> {
        let header = table.checked_add(index.checked_mul(entry_size)?)?;
        let at = number(elf, header.checked_add(0x18)?, 8)?;
        let size = number(elf, header.checked_add(0x20)?, 8)?;
        Some((
            number(elf, header, 4)?,
            elf.get(at..at.checked_add(size)?).unwrap_or_default(),
        ))
    };
    let (_, names) = section(names_index)?;
    (0..count).filter_map(section).find_map(|(name, bytes)| {
        let name = names.get(name..)?.split(|byte| *byte == 0).next()?;
        (name == wanted).then_some(bytes)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "\
kernel/drivers/block/virtio_blk.ko: kernel/drivers/virtio/virtio_ring.ko kernel/drivers/virtio/virtio.ko
kernel/drivers/virtio/virtio_ring.ko:
kernel/drivers/virtio/virtio.ko: kernel/drivers/virtio/virtio_ring.ko
kernel/drivers/char/hw_random/virtio-rng.ko: kernel/drivers/virtio/virtio.ko
kernel/a.ko: kernel/b.ko
kernel/b.ko: kernel/a.ko
kernel/c.ko: kernel/gone.ko
";

    fn check(wanted: &[&str], expected: &Result<Vec<&str>, ModuleError>) {
        let table = parse_dep(DEP);
        let builtin = parse_builtin("kernel/fs/erofs/erofs.ko\n");
        let order = load_order(wanted, &builtin, |name| Ok(table.get(name).cloned()));
        let expected = expected
            .clone()
            .map(|list| list.into_iter().map(str::to_owned).collect());
        assert_eq!(order, expected);
    }

    #[test]
    fn modules_load_after_what_they_need() {
        check(
            &["virtio_blk"],
            &Ok(vec!["virtio_ring", "virtio", "virtio_blk"]),
        );
        check(
            &["virtio_rng", "virtio_blk"],
            &Ok(vec!["virtio_ring", "virtio", "virtio_rng", "virtio_blk"]),
        );
        check(&["erofs"], &Ok(vec![]));
        check(&["virtio", "virtio"], &Ok(vec!["virtio_ring", "virtio"]));
    }

    #[test]
    fn missing_modules_and_circles_are_errors() {
        let missing = |name: &str, by: Option<&str>| ModuleError::Missing {
            name: name.to_owned(),
            needed_by: by.map(str::to_owned),
        };
        check(&["overlay"], &Err(missing("overlay", None)));
        check(&["c"], &Err(missing("gone", Some("c"))));
        check(
            &["a"],
            &Err(ModuleError::Cycle {
                name: "a".to_owned(),
            }),
        );
    }

    /// A module with a `.modinfo` section and nothing else.
    fn elf(modinfo: &[u8]) -> Vec<u8> {
        let names = b"\0.modinfo\0.shstrtab\0";
        let mut elf = vec![0; 64];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        let (info_at, names_at) = (64_u64, 64 + modinfo.len() as u64);
        elf.extend_from_slice(modinfo);
        elf.extend_from_slice(names);
        let table = elf.len() as u64;
        elf[0x28..0x30].copy_from_slice(&table.to_le_bytes());
        elf[0x3a] = 64;
        elf[0x3c] = 3;
        elf[0x3e] = 2;
        for (name, at, size) in [
            (0, 0, 0),
            (1, info_at, modinfo.len()),
            (10, names_at, names.len()),
        ] {
            let mut header = vec![0; 64];
            header[0] = name;
            header[0x18..0x20].copy_from_slice(&at.to_le_bytes());
            header[0x20..0x28].copy_from_slice(&(size as u64).to_le_bytes());
            elf.extend(header);
        }
        elf
    }

    #[test]
    fn modinfo_gives_hard_and_soft_dependencies() {
        let available = BTreeSet::from(["soft_one".to_owned()]);
        let module = elf(
            b"license=GPL\0depends=virtio,virtio-ring\0softdep=pre: soft-one alias post: later\0",
        );
        let needs = modinfo_depends("x", &module, &available).unwrap();
        assert_eq!(needs, ["virtio", "virtio_ring", "soft_one"]);
        let none = modinfo_depends("x", &elf(b"depends=\0"), &available).unwrap();
        assert_eq!(none, [""; 0]);
    }

    #[test]
    fn damaged_modules_are_refused_without_panic() {
        let whole = elf(b"depends=virtio\0");
        for end in 0..whole.len() {
            let _ = modinfo_depends("x", &whole[..end], &BTreeSet::new());
        }
        let error = modinfo_depends("x", b"\x7fELF", &BTreeSet::new()).unwrap_err();
        assert_eq!(
            error,
            ModuleError::NotElf {
                name: "x".to_owned()
            }
        );
    }
}
