//! The manifest that is signed: what it is of, and the hash of each file.
//!
//! Its bytes are canonical JSON (RFC 8785): members sorted by their names, no white space, numbers that are whole and below
//! 2^53. Bytes that would be written in another way are refused, so that one meaning has one signature.

use serde::{Deserialize, Serialize};

use super::Refusal;
use crate::store::SnapshotOrigin;

/// Version of the layout; a seal of another version is refused.
pub(super) const SCHEMA: u32 = 1;
/// Longest seal that is read, in bytes. A real one has less than 8 KiB.
pub(super) const MAX_BYTES: u64 = 1 << 20;
/// Whole numbers above this are not the same in every reader of JSON: RFC 8785, appendix D.
const MAX_NUMBER: u64 = (1 << 53) - 1;

/// What something sealed is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A kernel that templates share; named by its source.
    Kernel,
    /// A snapshot of a template's warmed guest; named by the hash of all that it depends on.
    Snapshot,
    /// A snapshot of a sandbox, which a user keeps; named by its id.
    Kept,
    /// A template; named as in the store.
    Template,
}

impl Kind {
    /// Its name in seals and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Snapshot => "snapshot",
            Self::Kept => "kept",
            Self::Template => "template",
        }
    }
}

/// One file of what is sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealedFile {
    /// BLAKE3 of the content, in hex; of a file that is sealed by ranges, the root of their hashes.
    pub hash: String,
    /// Its name within the seal.
    pub name: String,
    /// Size of a range in bytes, if the file is sealed by ranges.
    pub range_bytes: Option<u32>,
    /// Its size in bytes.
    pub size: u64,
}

/// What is signed. Members are in the order of their names: see the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seal {
    /// When it was made (RFC 3339).
    pub created: String,
    /// Grows with each seal of the same subject.
    pub epoch: u64,
    /// When it is refused (RFC 3339).
    pub expires: String,
    /// Every file that is used, by name.
    pub files: Vec<SealedFile>,
    /// Id of the key that signs.
    pub key: String,
    /// What it is of.
    pub kind: Kind,
    /// Which one.
    pub name: String,
    /// The machine, VMM and processor that a snapshot is of.
    pub origin: Option<SnapshotOrigin>,
    /// Version of this layout.
    pub schema: u32,
}

impl Seal {
    /// The bytes that are signed.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings and numbers always serialise")
    }

    /// Reads them.
    ///
    /// # Errors
    /// [`Refusal::Malformed`] for another layout, and for bytes that are not canonical.
    pub fn parse(bytes: &[u8]) -> Result<Seal, Refusal> {
        let malformed = |what: String| Refusal::Malformed { what };
        let seal: Seal =
            serde_json::from_slice(bytes).map_err(|error| malformed(error.to_string()))?;
        if seal.schema != SCHEMA {
            let what = format!("it has schema {}, this version reads {SCHEMA}", seal.schema);
            return Err(malformed(what));
        }
        let sizes = seal.files.iter().map(|file| file.size);
        if sizes.chain([seal.epoch]).any(|number| number > MAX_NUMBER) {
            return Err(malformed("a number is too large".to_owned()));
        }
        if seal.encode() != bytes {
            return Err(malformed("it is not canonical JSON".to_owned()));
        }
        Ok(seal)
    }

    /// What signature and messages call it.
    pub(super) fn subject(&self) -> String {
        format!("{} {}", self.kind.name(), self.name)
    }
}
