//! Checks seals, and hands out what was checked.

use std::fs;
use std::io;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use minisign::SignatureBox;

use super::Refusal;
use super::ranges::{Ranges, Sealed};
use super::remembered::{Begun, SUSPECT, Stamp};
use super::seal::{MAX_BYTES, Seal, SealedFile};
use super::signer::{Content, Piece, RANGED, Signing, Subject, WHOLE, signature_path};
use super::tree::{RANGE_BYTES, Tree, read_tree};
use crate::digest::{blake3_bytes, blake3_file};
use crate::file::{FileError, at};
use crate::store::SnapshotOrigin;

/// Lengths of the base64 lines of a signature: 2 + 8 + 64 and 64 bytes. Source: minisign, "Signature format".
const SIGNATURE_LINE: usize = 100;
const GLOBAL_LINE: usize = 88;
/// What is remembered of a file that is made of others, before the name of what it is made of.
const MADE: &str = "made ";
/// How often a file is hashed that changes while it is: a new link to it is a change too.
const TRIES: usize = 3;
/// Longest signature that is read, in bytes; a real one has less than 400.
const MAX_SIGNATURE_BYTES: u64 = 4096;

/// Something whose seal and files were verified. Only [`Signing::verify`] makes one, so that paths of it are paths of verified
/// files.
#[derive(Debug, Clone)]
pub struct Verified<T> {
    value: T,
    expires: Timestamp,
    stamps: Vec<(PathBuf, Stamp)>,
}

impl<T> Verified<T> {
    /// Whether it has not expired and every file is still the one that was verified. Costs a few microseconds.
    pub fn is_unchanged(&self, now: Timestamp) -> bool {
        let same =
            |(path, stamp): &(PathBuf, Stamp)| Stamp::of(path).is_ok_and(|now| now == *stamp);
        now < self.expires && self.stamps.iter().all(same)
    }

    /// The proof for one more file, which was verified in another way.
    pub(crate) fn add(&mut self, path: PathBuf, stamp: Stamp) {
        self.stamps.retain(|(known, _)| *known != path);
        self.stamps.push((path, stamp));
    }

    /// The same proof for what belongs to it.
    pub(crate) fn map<U>(self, change: impl FnOnce(T) -> U) -> Verified<U> {
        Verified {
            value: change(self.value),
            expires: self.expires,
            stamps: self.stamps,
        }
    }
}

impl<T> Deref for Verified<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl Signing {
    /// Verifies the seal at `path`, which must be of this subject and these files and of no epoch before `newest`; then every
    /// file, unless it is remembered.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn verify(
        &self,
        path: &Path,
        subject: &Subject,
        pieces: &[Piece<'_>],
        newest: u64,
        now: Timestamp,
    ) -> Result<Verified<()>, Refusal> {
        let seal = self.read_seal(path)?;
        check_subject(&seal, subject)?;
        if seal.epoch < newest {
            return Err(Refusal::OlderEpoch {
                epoch: seal.epoch,
                newest,
            });
        }
        let expires: Timestamp = seal.expires.parse().map_err(|error: jiff::Error| {
            let what = error.to_string();
            Refusal::Malformed { what }
        })?;
        if expires <= now {
            return Err(Refusal::Expired { at: seal.expires });
        }
        let names: Vec<_> = seal.files.iter().map(|file| file.name.as_str()).collect();
        if names != pieces.iter().map(|piece| piece.name).collect::<Vec<_>>() {
            return Err(Refusal::OtherFiles);
        }
        let mut stamps = Vec::new();
        for (sealed, piece) in seal.files.iter().zip(pieces) {
            let checked = self.check_file(&seal, sealed, &piece.content)?;
            stamps.extend(checked);
        }
        self.raise(subject, seal.epoch)?;
        Ok(Verified {
            value: (),
            expires,
            stamps,
        })
    }

    /// Opens a ranged file of a seal so that each range is checked when it is first read. Nothing, if all of it is known to be
    /// what was sealed, so that this is not needed.
    ///
    /// # Errors
    /// [`Refusal`]; the seal is verified, the file is not read.
    pub fn ranges(
        &self,
        path: &Path,
        subject: &Subject,
        piece: &Piece<'_>,
    ) -> Result<Option<Ranges>, Refusal> {
        let seal = self.read_seal(path)?;
        check_subject(&seal, subject)?;
        let sealed = seal.files.iter().find(|sealed| sealed.name == piece.name);
        let (Some(sealed), Content::Ranged { file, leaves, .. }) = (sealed, &piece.content) else {
            return Err(Refusal::OtherFiles);
        };
        if sealed.range_bytes != Some(RANGE_BYTES) {
            return Err(Refusal::OtherFiles);
        }
        let whole = format!("{RANGED}{}", sealed.hash);
        let stamp = Stamp::of(file).map_err(at("read", file))?;
        if self.remembered.found(&stamp).as_ref() == Some(&whole) {
            return Ok(None);
        }
        let sealed = Sealed {
            name: &sealed.name,
            path: file,
            leaves,
            size: sealed.size,
            root: &sealed.hash,
        };
        Ranges::open(&sealed, &self.remembered, whole).map(Some)
    }

    /// Verifies a file that is made of others, which are verified: it must be what `make` makes. That is not asked again while the
    /// file is the same. Nothing, if it is not there or not that.
    pub(crate) fn check_made(
        &self,
        path: &Path,
        key: &str,
        make: impl FnOnce() -> Result<Vec<u8>, FileError>,
    ) -> Result<Option<Stamp>, FileError> {
        let begun = match Begun::of(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            begun => begun.map_err(at("read", path))?,
        };
        let wanted = format!("{MADE}{key}");
        if self.remembered.found(&begun.stamp) == Some(wanted.clone()) {
            return Ok(Some(begun.stamp));
        }
        let (hash, _) = blake3_file(path).map_err(at("read", path))?;
        if hash != blake3_bytes(&make()?) {
            return Ok(None);
        }
        let same = self.remember(path, &begun, &wanted)?;
        Ok(same.then_some(begun.stamp))
    }

    /// The seal at `path`, if one of the trusted keys signed it.
    fn read_seal(&self, path: &Path) -> Result<Seal, Refusal> {
        let signature = read_bounded(&signature_path(path), MAX_SIGNATURE_BYTES)?;
        let bytes = read_bounded(path, MAX_BYTES)?;
        let malformed = |what: &str| Refusal::Malformed {
            what: what.to_owned(),
        };
        let text =
            String::from_utf8(signature).map_err(|_| malformed("the signature is no text"))?;
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        let [_, signature, _, global] = lines[..] else {
            return Err(malformed("the signature has not four lines"));
        };
        if signature.len() != SIGNATURE_LINE || global.len() != GLOBAL_LINE {
            return Err(malformed(
                "a line of the signature is too short or too long",
            ));
        }
        let signature =
            SignatureBox::from_string(&text).map_err(|error| malformed(&error.to_string()))?;
        let id = super::key::key_id(signature.keynum());
        let Some(key) = self.keys.find(signature.keynum())? else {
            return Err(Refusal::UnknownKey { key: id });
        };
        if minisign::verify(
            &key,
            &signature,
            io::Cursor::new(&bytes),
            true,
            false,
            false,
        )
        .is_err()
        {
            return Err(Refusal::BadSignature { key: id });
        }
        let seal = Seal::parse(&bytes)?;
        if seal.key != id {
            return Err(malformed("it names another key than its signature"));
        }
        Ok(seal)
    }

    fn check_file(
        &self,
        seal: &Seal,
        sealed: &SealedFile,
        content: &Content<'_>,
    ) -> Result<Option<(PathBuf, Stamp)>, Refusal> {
        let (path, leaves, lazily) = match content {
            Content::Bytes(bytes) => {
                check_size(sealed, bytes.len() as u64)?;
                check_hash(seal, sealed, &blake3_bytes(bytes))?;
                return Ok(None);
            }
            Content::File(path) => (path, None, false),
            Content::Ranged {
                file,
                leaves,
                lazily,
            } => (file, Some(leaves), *lazily),
        };
        let prefix = if leaves.is_some() { RANGED } else { WHOLE };
        let wanted = format!("{prefix}{}", sealed.hash);
        for _ in 0..TRIES {
            let begun = match Begun::of(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(Refusal::Missing {
                        file: sealed.name.clone(),
                    });
                }
                begun => begun.map_err(at("read", path))?,
            };
            check_size(sealed, begun.stamp.size)?;
            let known = self.remembered.found(&begun.stamp);
            if known.as_ref() == Some(&wanted) {
                return Ok(Some((path.clone(), begun.stamp)));
            }
            match leaves {
                Some(leaves) if lazily && known.as_deref() != Some(SUSPECT) => {
                    // What they have is checked when it is read.
                    check_range_size(sealed)?;
                    read_tree(&sealed.name, leaves, sealed.size, &sealed.hash)?;
                    return Ok(Some((path.clone(), begun.stamp)));
                }
                None => {
                    let (hash, _) = blake3_file(path).map_err(at("read", path))?;
                    check_hash(seal, sealed, &hash)?;
                }
                Some(leaves) => check_ranges(sealed, path, leaves)?,
            }
            if self.remember(path, &begun, &wanted)? {
                return Ok(Some((path.clone(), begun.stamp)));
            }
        }
        Err(Refusal::Restless {
            file: sealed.name.clone(),
        })
    }
}

fn check_subject(seal: &Seal, subject: &Subject) -> Result<(), Refusal> {
    if (seal.kind, &seal.name) != (subject.kind, &subject.name) {
        let wanted = format!("{} {}", subject.kind.name(), subject.name);
        return Err(Refusal::OtherSubject {
            sealed: seal.subject(),
            wanted,
        });
    }
    match (&seal.origin, &subject.origin) {
        (Some(sealed), Some(here)) => check_origin(sealed, here),
        (None, None) => Ok(()),
        _ => Err(Refusal::Malformed {
            what: "only a seal of a snapshot tells of a machine".to_owned(),
        }),
    }
}

fn check_origin(sealed: &SnapshotOrigin, here: &SnapshotOrigin) -> Result<(), Refusal> {
    if sealed.cpu != here.cpu {
        return Err(Refusal::OtherCpu {
            sealed: sealed.cpu.clone(),
            here: here.cpu.clone(),
        });
    }
    if sealed.vmm != here.vmm {
        return Err(Refusal::OtherVmm {
            sealed: sealed.vmm.clone(),
            here: here.vmm.clone(),
        });
    }
    match sealed.first_difference(here) {
        None => Ok(()),
        Some((what, sealed, wanted)) => Err(Refusal::OtherMachine {
            what,
            sealed,
            wanted,
        }),
    }
}

fn check_size(sealed: &SealedFile, found: u64) -> Result<(), Refusal> {
    if found == sealed.size {
        return Ok(());
    }
    Err(Refusal::Size {
        file: sealed.name.clone(),
        sealed: sealed.size,
        found,
    })
}

fn check_hash(seal: &Seal, sealed: &SealedFile, found: &str) -> Result<(), Refusal> {
    if sealed.range_bytes.is_none() && sealed.hash == found {
        return Ok(());
    }
    let other = seal
        .files
        .iter()
        .find(|other| other.hash == found && other.name != sealed.name);
    Err(match other {
        Some(other) => Refusal::Swapped {
            file: sealed.name.clone(),
            other: other.name.clone(),
        },
        None => Refusal::Changed {
            file: sealed.name.clone(),
            offset: None,
        },
    })
}

fn check_range_size(sealed: &SealedFile) -> Result<(), Refusal> {
    if sealed.range_bytes == Some(RANGE_BYTES) {
        return Ok(());
    }
    let what = format!("{} has ranges of another size", sealed.name);
    Err(Refusal::Malformed { what })
}

fn check_ranges(sealed: &SealedFile, path: &Path, leaves: &Path) -> Result<(), Refusal> {
    check_range_size(sealed)?;
    let tree = read_tree(&sealed.name, leaves, sealed.size, &sealed.hash)?;
    let found = Tree::of(path, sealed.size).map_err(at("read", path))?;
    match tree.first_difference(&found) {
        None => Ok(()),
        offset => Err(Refusal::Changed {
            file: sealed.name.clone(),
            offset,
        }),
    }
}

fn read_bounded(path: &Path, most: u64) -> Result<Vec<u8>, Refusal> {
    let size = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Refusal::NotSigned),
        meta => meta.map_err(at("read", path))?.len(),
    };
    if size > most {
        let what = format!("{} is longer than {most} bytes", path.display());
        return Err(Refusal::Malformed { what });
    }
    Ok(fs::read(path).map_err(at("read", path))?)
}
