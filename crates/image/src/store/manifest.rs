//! What the store records about a template: one JSON file each, unknown fields refused.

use std::collections::BTreeMap;

use firelane_guest_proto::Tier;
use firelane_network::policy::Settings;
use serde::{Deserialize, Serialize};

use crate::digest::blake3_bytes;
use crate::recipe::debian::Package;

/// Version of the manifest's layout; a manifest of another version is not read.
pub(crate) const SCHEMA: u32 = 1;

/// A file of the store, named by its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blob {
    /// BLAKE3 of the content, in hex; also the file's name.
    pub hash: String,
    /// Size in bytes.
    pub size: u64,
}

/// A guest kernel, shared by the templates of a store that were built with the same source of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kernel {
    /// Its release, as in `lib/modules/<version>` and as `uname -r` prints it.
    pub version: String,
    /// The package it came from.
    pub package: Package,
    /// `vmlinux`: an uncompressed ELF file.
    pub vmlinux: Blob,
    /// `modules.cpio`: `/modules/*.ko` and `/modules/order`, to be joined to an initrd. Empty where everything is built in.
    pub modules: Blob,
}

/// A built template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of the layout of this file.
    pub schema: u32,
    /// Name within the store.
    pub name: String,
    /// One line for people.
    pub description: String,
    /// Hash of all that decides how a guest behaves; equal content has an equal id in any store.
    pub id: String,
    /// Hash of the resolved definition this was built from.
    pub definition: String,
    /// When it was built (RFC 3339); not part of the id.
    pub created: String,
    /// Root file system: an uncompressed erofs image.
    pub rootfs: Blob,
    /// Kernel and modules.
    pub kernel: Kernel,
    /// Debian packages in the root file system.
    pub packages: Vec<Package>,
    /// Python wheels that files were taken from.
    pub wheels: Vec<Package>,
    /// Environment of programs in the guest.
    pub env: BTreeMap<String, String>,
    /// Default guest memory in MiB.
    pub memory_mib: u32,
    /// Which system calls programs may make, unless a run is given another tier; the usual one is not written.
    #[serde(default, skip_serializing_if = "is_usual")]
    pub seccomp: Tier,
    /// What programs may reach, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Settings>,
    /// Language -> snippets that warm a guest before its snapshot.
    pub warmup: BTreeMap<String, Vec<String>>,
}

impl Manifest {
    /// The id that belongs to the content of this manifest.
    pub fn content_id(&self) -> String {
        let content = (
            self.schema,
            &self.rootfs.hash,
            &self.kernel.vmlinux.hash,
            &self.kernel.modules.hash,
            &self.env,
            self.memory_mib,
            &self.warmup,
        );
        let bytes = match (self.seccomp, &self.network) {
            // What does not differ in it keeps the id that it had before there were tiers, or networks.
            (tier, None) if is_usual(&tier) => serde_json::to_vec(&content),
            (tier, None) => serde_json::to_vec(&(content, tier)),
            (tier, network) => serde_json::to_vec(&(content, tier, network)),
        };
        blake3_bytes(&bytes.expect("strings and numbers always serialise"))
    }

    /// The blobs a template cannot do without.
    pub fn blobs(&self) -> [&Blob; 3] {
        [&self.rootfs, &self.kernel.vmlinux, &self.kernel.modules]
    }
}

/// Whether this is the tier of whoever names none.
pub(crate) fn is_usual(tier: &Tier) -> bool {
    *tier == Tier::default()
}
