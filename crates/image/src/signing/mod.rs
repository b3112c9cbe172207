//! Signing: what was made is sealed, and nothing is mapped that does not match its seal.
//!
//! A seal is a manifest of the files of one template, kernel or snapshot, signed by the host that made them:
//! `docs/signing.md` describes the formats.
//!
//! ```text
//! signing/host.key         secret key of this host, minisign's format without a password; mode 0600
//! signing/host.pub         its public key
//! signing/trusted/*.pub    further public keys whose seals are believed
//! signing/epochs/*         the newest epoch seen of each subject
//! signing/verified/*       files that were hashed since the host's boot, and what was found
//! ```
//!
//! | File | Subject |
//! | --- | --- |
//! | `key.rs` | keys: made, read, trusted, found by their id |
//! | `seal.rs` | the manifest that is signed: its bytes |
//! | `signer.rs` | makes seals |
//! | `verify.rs` | checks seals, and hands out what was checked |
//! | `tree.rs` | hashes of a large file's ranges |
//! | `ranges.rs` | a file whose ranges are checked as they are used |
//! | `remembered.rs` | files that need not be hashed again |
//! | `epochs.rs` | the newest epoch seen |
//! | `refusal.rs` | why something is not used |

mod epochs;
mod key;
mod ranges;
mod refusal;
mod remembered;
mod seal;
mod signer;
#[cfg(test)]
mod tests;
mod tree;
mod verify;

pub use key::{KeyError, KeyInfo, Keys, write_pair};
pub use ranges::Ranges;
pub use refusal::Refusal;
pub(crate) use remembered::Stamp;
pub use seal::{Kind, Seal, SealedFile};
pub use signer::{Content, Piece, SealError, Signing, Subject};
pub(crate) use signer::{SIGNATURE, remove_seal};
pub use tree::RANGE_BYTES;
pub use verify::Verified;
