//! A machine as far as its VMM is started with it.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Longest name of a microVM, in bytes.
pub const MAX_ID: usize = 64;

/// Whether this can be the name of a microVM: letters, digits and hyphens, 64 at most.
#[must_use]
pub fn is_id(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    !name.is_empty() && name.len() <= MAX_ID && name.bytes().all(plain)
}

/// Name and size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// Name of the microVM, unique on the host; see [`is_id`].
    pub id: String,
    /// Guest memory in MiB.
    pub memory_mib: u32,
    /// Virtual processors.
    pub vcpus: u32,
}

/// Under which paths the VMM finds its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The kernel.
    pub kernel: PathBuf,
    /// The initrd, if the guest has one.
    pub initrd: Option<PathBuf>,
    /// The root file system image, if the guest has one.
    pub rootfs: Option<PathBuf>,
    /// How much of that the guest may read.
    pub disk: DiskLimits,
}

/// What a guest may read of its disk in a second, and as much again at once. A guest can read its disk without end, past
/// its own page cache, and each read is work of the host's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskLimits {
    /// Bytes; at least 1, and 0 counts as that: VMMs take 0 for no bound.
    pub bytes_per_s: u64,
    /// Requests; the same.
    pub ops_per_s: u64,
}

impl DiskLimits {
    /// What no honest program feels: the largest built-in template is read whole in two seconds, at once for the most
    /// part, and what was read once is in the guest's page cache.
    pub const DEFAULT: DiskLimits = DiskLimits {
        bytes_per_s: 512 << 20,
        ops_per_s: 65_536,
    };
}

/// What is behind a guest's network device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// Nothing: whatever the guest sends is gone.
    Nothing,
    /// A tap that the VMM is handed.
    Tap,
}

/// What executes the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Acceleration {
    /// The processor, through KVM.
    Kvm,
    /// Software emulation. QEMU does not call it a security boundary.
    Tcg,
}

impl fmt::Display for Acceleration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Acceleration::Kvm => "kvm",
            Acceleration::Tcg => "tcg",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_and_short() {
        for good in ["a", "vm-1", "0f", &"x".repeat(MAX_ID)] {
            assert!(is_id(good), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "a b",
            "ä",
            "a\n",
            &"x".repeat(MAX_ID + 1),
        ] {
            assert!(!is_id(bad), "{bad}");
        }
    }
}
