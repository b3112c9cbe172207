//! Makes seals.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp, Unit};

use super::epochs::Epochs;
use super::key::{KeyError, Keys, key_id, private_folder};
use super::remembered::{Begun, Remembered, Stamp};
use super::seal::{Kind, SCHEMA, Seal, SealedFile};
use super::tree::{RANGE_BYTES, Tree, write_tree};
use crate::digest::{blake3_bytes, blake3_file};
use crate::file::{FileError, at, put, sync};
use crate::store::SnapshotOrigin;

const DAY: SignedDuration = SignedDuration::from_hours(24);

/// End of the name of a signature.
pub(crate) const SIGNATURE: &str = "minisig";

/// Why something could not be sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The host's key.
    #[error("cannot use this host's signing key")]
    Key(#[from] KeyError),
    /// The signature could not be made.
    #[error("cannot sign: {0}")]
    Sign(String),
    /// A file operation failed.
    #[error(transparent)]
    File(#[from] FileError),
}

impl SealError {
    /// What the user can do about it, where that is known.
    pub fn remedy(&self) -> Option<String> {
        match self {
            Self::Key(error) => error.remedy(),
            Self::Sign(_) | Self::File(_) => None,
        }
    }
}

/// What is sealed.
#[derive(Debug, Clone)]
pub struct Subject {
    /// What it is.
    pub kind: Kind,
    /// Which one.
    pub name: String,
    /// The machine, VMM and processor that a snapshot is of.
    pub origin: Option<SnapshotOrigin>,
}

impl Subject {
    /// How long a seal of it is good. Packages grow old in templates; a snapshot of one is made again at no cost; what a user
    /// keeps is the user's to throw away.
    pub(super) fn lifetime(&self) -> SignedDuration {
        let days = match self.kind {
            Kind::Template | Kind::Kernel => 365,
            Kind::Snapshot => 30,
            Kind::Kept => 3650,
        };
        DAY * days
    }
}

/// One file that a seal covers.
#[derive(Debug, Clone)]
pub struct Piece<'a> {
    /// Its name within the seal.
    pub name: &'a str,
    /// Where its content is.
    pub content: Content<'a>,
}

/// Where the content of a sealed file is.
#[derive(Debug, Clone)]
pub enum Content<'a> {
    /// At hand.
    Bytes(&'a [u8]),
    /// In a file, which is hashed whole.
    File(PathBuf),
    /// In a file that is hashed by ranges.
    Ranged {
        /// The file.
        file: PathBuf,
        /// The file with the hashes of its ranges.
        leaves: PathBuf,
        /// Whether each range may be verified when it is first read, by [`Signing::ranges`], and not all of them before.
        lazily: bool,
    },
}

/// What a store signs and verifies with.
#[derive(Debug, Clone)]
pub struct Signing {
    pub(super) keys: Keys,
    pub(crate) epochs: Epochs,
    pub(super) remembered: Remembered,
}

impl Signing {
    /// With keys and records in this folder, which is made where it is missing (0700).
    ///
    /// # Errors
    /// [`FileError`].
    pub(crate) fn open(folder: &Path) -> Result<Signing, FileError> {
        if !folder.is_dir() {
            private_folder(folder)?;
        }
        Ok(Signing {
            keys: Keys::open(folder)?,
            epochs: Epochs::open(&folder.join("epochs"))?,
            remembered: Remembered::open(&folder.join("verified"))?,
        })
    }

    /// The keys.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Seals these files as they are now: writes the seal to `path`, its signature beside it, and the hashes of ranges. Returns
    /// the seal's epoch, which counts once it is [raised](Signing::raise): whoever reads meanwhile sees the seal before.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn seal(
        &self,
        path: &Path,
        subject: &Subject,
        pieces: &[Piece<'_>],
        now: Timestamp,
    ) -> Result<u64, SealError> {
        let (public, secret) = self.keys.host()?;
        let files = pieces.iter().map(|piece| self.seal_file(piece));
        let seal = Seal {
            created: written(now),
            epoch: self.epochs.newest(subject.kind, &subject.name)? + 1,
            expires: written(now + subject.lifetime()),
            files: files.collect::<Result<_, FileError>>()?,
            key: key_id(public.keynum()),
            kind: subject.kind,
            name: subject.name.clone(),
            origin: subject.origin.clone(),
            schema: SCHEMA,
        };
        let bytes = seal.encode();
        let trusted = format!("firelane {} epoch {}", seal.subject(), seal.epoch);
        let untrusted = format!("signed by firelane, key {}", seal.key);
        let signature = minisign::sign(
            Some(&public),
            &secret,
            io::Cursor::new(&bytes),
            Some(&trusted),
            Some(&untrusted),
        );
        let signature = signature.map_err(|error| SealError::Sign(error.to_string()))?;
        for (path, content) in [
            (signature_path(path), signature.to_bytes()),
            (path.to_owned(), bytes),
        ] {
            put(&path, &content, 0o644)?;
            sync(&path)?;
        }
        Ok(seal.epoch)
    }

    /// The newest epoch of it that was seen; 0 if none was.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn newest(&self, subject: &Subject) -> Result<u64, FileError> {
        self.epochs.newest(subject.kind, &subject.name)
    }

    /// Remembers that something of this epoch is in place: older ones are refused from now on.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn raise(&self, subject: &Subject, epoch: u64) -> Result<(), FileError> {
        self.epochs.raise(subject.kind, &subject.name, epoch)
    }

    fn seal_file(&self, piece: &Piece<'_>) -> Result<SealedFile, FileError> {
        let (hash, size, range_bytes) = match &piece.content {
            Content::Bytes(bytes) => (blake3_bytes(bytes), bytes.len() as u64, None),
            Content::File(path) => {
                let (hash, size) = self.hash_file(path)?;
                (hash, size, None)
            }
            Content::Ranged { file, leaves, .. } => {
                let (tree, size) = self.hash_ranges(file)?;
                write_tree(&tree, leaves)?;
                (tree.root(), size, Some(RANGE_BYTES))
            }
        };
        Ok(SealedFile {
            hash,
            name: piece.name.to_owned(),
            range_bytes,
            size,
        })
    }

    /// BLAKE3 of a file and its size in bytes; the file is not read if it is remembered.
    fn hash_file(&self, path: &Path) -> Result<(String, u64), FileError> {
        let begun = Begun::of_written(path).map_err(at("read", path))?;
        let size = begun.stamp.size;
        if let Some(found) = self.remembered.found(&begun.stamp)
            && let Some(hash) = found.strip_prefix(WHOLE)
        {
            return Ok((hash.to_owned(), size));
        }
        let (hash, size) = blake3_file(path).map_err(at("read", path))?;
        self.remember(path, &begun, &format!("{WHOLE}{hash}"))?;
        Ok((hash, size))
    }

    /// The hashes of a file's ranges and its size in bytes.
    fn hash_ranges(&self, path: &Path) -> Result<(Tree, u64), FileError> {
        let begun = Begun::of_written(path).map_err(at("read", path))?;
        let size = begun.stamp.size;
        let tree = Tree::of(path, size).map_err(at("read", path))?;
        self.remember(path, &begun, &format!("{RANGED}{}", tree.root()))?;
        Ok((tree, size))
    }

    /// Remembers what was found in a file, unless it changed while it was read. Whether it did not, as far as its times tell.
    pub(super) fn remember(
        &self,
        path: &Path,
        begun: &Begun,
        found: &str,
    ) -> Result<bool, FileError> {
        let Begun { stamp, at: since } = begun;
        let after = Stamp::of(path).map_err(at("read", path))?;
        if after == *stamp {
            self.remembered.remember(stamp, found, *since)?;
        }
        Ok(after == *stamp)
    }
}

/// What is remembered of a file that was hashed whole, and of one that was hashed by ranges, before the hash.
pub(super) const WHOLE: &str = "blake3 ";
pub(super) const RANGED: &str = "ranges ";

pub(super) fn signature_path(seal: &Path) -> PathBuf {
    seal.with_added_extension(SIGNATURE)
}

/// Removes a seal and its signature.
pub(crate) fn remove_seal(path: &Path) -> Result<(), FileError> {
    for path in [path.to_owned(), signature_path(path)] {
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            done => done.map_err(at("remove", &path))?,
        }
    }
    Ok(())
}

fn written(at: Timestamp) -> String {
    at.round(Unit::Second).unwrap_or(at).to_string()
}
