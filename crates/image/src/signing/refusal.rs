//! Why something that was sealed, or should have been, is not used.

use super::key::KeyError;
use crate::file::FileError;

/// The reason. Nothing was mapped.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// There is no seal, or no signature of it.
    #[error("it is not signed")]
    NotSigned,
    /// The seal, its signature or a key is not as the format says.
    #[error("its seal cannot be read: {what}")]
    Malformed {
        /// What is wrong.
        what: String,
    },
    /// It is signed with a key that is not trusted here.
    #[error("it is signed with the unknown key {key}")]
    UnknownKey {
        /// The key's id.
        key: String,
    },
    /// The signature is not that of the key it names.
    #[error("its signature is not that of key {key}")]
    BadSignature {
        /// The key's id.
        key: String,
    },
    /// It is older than what was seen before.
    #[error("its epoch {epoch} is older than {newest}, which was seen before")]
    OlderEpoch {
        /// Its epoch.
        epoch: u64,
        /// The newest that was seen.
        newest: u64,
    },
    /// Its time is over.
    #[error("it expired at {at}")]
    Expired {
        /// When (RFC 3339).
        at: String,
    },
    /// It is the seal of something else.
    #[error("it is the seal of {sealed}, not of {wanted}")]
    OtherSubject {
        /// What it is the seal of.
        sealed: String,
        /// What was looked for.
        wanted: String,
    },
    /// It was made on another kind of processor.
    #[error("it was made for the processor {sealed:?}, this one is {here:?}")]
    OtherCpu {
        /// The processor that it was made for.
        sealed: String,
        /// The processor of this host.
        here: String,
    },
    /// It was made by another VMM.
    #[error("it was made by the VMM {sealed:?}, this host has {here:?}")]
    OtherVmm {
        /// The VMM that made it.
        sealed: String,
        /// The VMM of this host.
        here: String,
    },
    /// It is of a machine of another shape, or with other files.
    #[error("it is of another machine: {what} is {sealed}, not {wanted}")]
    OtherMachine {
        /// Which property.
        what: &'static str,
        /// As it is sealed.
        sealed: String,
        /// As it should be.
        wanted: String,
    },
    /// The seal is of other files than it should be.
    #[error("its seal does not cover exactly the files that are used")]
    OtherFiles,
    /// A file is gone.
    #[error("{file} is missing")]
    Missing {
        /// The file.
        file: String,
    },
    /// A file is shorter or longer than it was.
    #[error(
        "{file} {}: it has {found} of {sealed} bytes",
        if found < sealed { "is truncated" } else { "has grown" }
    )]
    Size {
        /// The file.
        file: String,
        /// Its sealed size in bytes.
        sealed: u64,
        /// Its present size in bytes.
        found: u64,
    },
    /// A file has another content.
    #[error("{file} has changed{}", offset.map(|offset| format!(" at or after byte {offset}")).unwrap_or_default())]
    Changed {
        /// The file.
        file: String,
        /// Where the first changed range begins, in bytes, if the file is sealed by ranges.
        offset: Option<u64>,
    },
    /// A file has the content of another one of the same seal.
    #[error("{file} has the content of {other}")]
    Swapped {
        /// The file.
        file: String,
        /// The file whose content it has.
        other: String,
    },
    /// A file changed each time that it was read.
    #[error("{file} changes while it is read")]
    Restless {
        /// The file.
        file: String,
    },
    /// A file could not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The key that signed it is not among those that can be read, and some cannot.
    #[error("its key is not found, and there are keys that cannot be read")]
    Keys(#[from] KeyError),
}

impl Refusal {
    /// Whether it says something about this host, and nothing about what was to be verified: once what cannot be read here is
    /// mended, the same may verify.
    pub fn is_of_the_host(&self) -> bool {
        matches!(self, Self::File(_) | Self::Keys(_))
    }

    /// Whether what was refused may show who did what, so that it is kept aside. What was never signed or is only old shows
    /// nothing.
    pub fn is_evidence(&self) -> bool {
        !matches!(self, Self::NotSigned | Self::Expired { .. })
    }
}
