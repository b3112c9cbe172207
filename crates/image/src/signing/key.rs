//! Keys: that of this host, made when it is first needed, and those of others that it trusts.
//!
//! The files are minisign's: <https://jedisct1.github.io/minisign/>, "Public key format" and "Secret key format". The secret
//! key has no password, because a host signs while nobody is there to type one: its mode and its folder's keep it.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use minisign::{KeyPair, PublicKey, SecretKey, SecretKeyBox};
use serde::Serialize;

use crate::file::{FileError, at, replace};

/// Longest key file that is read, in bytes; real ones have less than 300.
const MAX_KEY_BYTES: u64 = 4096;
/// Most keys that are trusted at once.
const MAX_TRUSTED: usize = 256;

const SECRET: &str = "host.key";
const PUBLIC: &str = "host.pub";
const TRUSTED: &str = "trusted";

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A file is not a key of minisign.
    #[error("{} is not a {what} of minisign: {reason}", path.display())]
    NotAKey {
        /// The file.
        path: PathBuf,
        /// What it should be.
        what: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// Others may read the secret key.
    #[error("the secret key {} is readable by others (mode {mode:03o})", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// No key could be made.
    #[error("cannot make a key: {0}")]
    Make(String),
    /// There is one already.
    #[error("{} exists already", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// Too many are trusted.
    #[error("more than {MAX_TRUSTED} keys are trusted")]
    TooMany,
    /// A file operation failed.
    #[error(transparent)]
    File(#[from] FileError),
}

impl KeyError {
    /// What the user can do about it, where that is known.
    pub fn remedy(&self) -> Option<String> {
        match self {
            Self::NotAKey { what, .. } if *what == "public key" => {
                Some("give a file as 'firelane key generate --signing' or 'minisign -G' writes it: two lines, the second one the key".to_owned())
            }
            Self::NotAKey { path, .. } => Some(format!(
                "restore it from a copy, or move {} away: another is made, and what the old one signed is made again",
                path.display()
            )),
            Self::Exposed { path, .. } => Some(format!("chmod 600 {}", path.display())),
            Self::Exists { .. } => Some("name another folder".to_owned()),
            Self::TooMany => Some("remove those from signing/trusted that are not needed".to_owned()),
            Self::Make(_) | Self::File(_) => None,
        }
    }
}

/// A key that is trusted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyInfo {
    /// Its id: 16 hexadecimal digits, as minisign prints it.
    pub id: String,
    /// The file it is in.
    pub path: PathBuf,
    /// Whether it is this host's own.
    pub own: bool,
}

/// The folder of the keys.
#[derive(Debug, Clone)]
pub struct Keys {
    folder: PathBuf,
}

impl Keys {
    pub(super) fn open(folder: &Path) -> Result<Keys, FileError> {
        let trusted = folder.join(TRUSTED);
        if !trusted.is_dir() {
            private_folder(folder)?;
            private_folder(&trusted)?;
        }
        Ok(Keys {
            folder: folder.to_owned(),
        })
    }

    /// The host's key pair, made if there is none. Several that make it at once end with the same.
    ///
    /// # Errors
    /// [`KeyError`].
    pub(super) fn host(&self) -> Result<(PublicKey, SecretKey), KeyError> {
        let path = self.folder.join(SECRET);
        if !path.exists() {
            self.make_host_key(&path)?;
        }
        let secret = read_secret(&path)?;
        let public = PublicKey::from_secret_key(&secret).map_err(|error| KeyError::NotAKey {
            path,
            what: "secret key",
            reason: error.to_string(),
        })?;
        let beside = self.folder.join(PUBLIC);
        let text = public_text(&public)?;
        if fs::read(&beside).ok().as_deref() != Some(text.as_bytes()) {
            replace(&beside, text.as_bytes(), 0o644)?;
        }
        Ok((public, secret))
    }

    /// The id of the host's key, which is made if there is none.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn host_id(&self) -> Result<String, KeyError> {
        Ok(key_id(self.host()?.0.keynum()))
    }

    fn make_host_key(&self, path: &Path) -> Result<(), KeyError> {
        let pair = pair()?;
        let draft = format!("{SECRET}.{}", key_id(pair.sk.keynum()));
        let draft = self.folder.join(draft);
        create(&draft, &secret_text(&pair.sk)?, 0o600)?;
        // A link, and no rename: whoever comes second takes the key of the first.
        let linked = fs::hard_link(&draft, path);
        fs::remove_file(&draft).map_err(at("remove", &draft))?;
        match linked {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(at("create", path)(error).into())
            }
            _ => Ok(()),
        }
    }

    /// All keys that are trusted, the host's own first.
    ///
    /// # Errors
    /// [`KeyError`], for the first that cannot be read.
    pub fn list(&self) -> Result<Vec<KeyInfo>, KeyError> {
        let all = self.paths()?.into_iter().map(|(path, own)| {
            let id = key_id(read_public(&path)?.keynum());
            Ok(KeyInfo { id, path, own })
        });
        all.collect()
    }

    /// Trusts what the key in this file signs. Returns its id; one that is trusted already stays.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn trust(&self, file: &Path) -> Result<String, KeyError> {
        let key = read_public(file)?;
        let id = key_id(key.keynum());
        if self.find(key.keynum())?.is_some_and(|known| known == key) {
            return Ok(id);
        }
        let path = self.folder.join(TRUSTED).join(format!("{id}.pub"));
        create(&path, &public_text(&key)?, 0o644)?;
        Ok(id)
    }

    /// The trusted key with this id. A file that is no key says nothing about those beside it; it is an error only if the key is
    /// not in another one.
    pub(super) fn find(&self, keynum: &[u8]) -> Result<Option<PublicKey>, KeyError> {
        let mut unreadable = None;
        for (path, _) in self.paths()? {
            match read_public(&path) {
                Ok(key) if key.keynum() == keynum => return Ok(Some(key)),
                Ok(_) => {}
                Err(error) => unreadable = unreadable.or(Some(error)),
            }
        }
        unreadable.map_or(Ok(None), Err)
    }

    fn paths(&self) -> Result<Vec<(PathBuf, bool)>, KeyError> {
        let own = self.folder.join(PUBLIC);
        let trusted = self.folder.join(TRUSTED);
        let mut others = Vec::new();
        for entry in fs::read_dir(&trusted).map_err(at("list", &trusted))? {
            let path = entry.map_err(at("list", &trusted))?.path();
            if path.extension().is_some_and(|end| end == "pub") {
                others.push((path, false));
            }
            if others.len() > MAX_TRUSTED {
                return Err(KeyError::TooMany);
            }
        }
        others.sort();
        let own = own.exists().then_some((own, true));
        Ok(own.into_iter().chain(others).collect())
    }
}

/// Makes a key pair in a folder: `firelane.key` (0600) and `firelane.pub`. Returns the key's id.
///
/// # Errors
/// [`KeyError::Exists`] if one of the files is there.
pub fn write_pair(folder: &Path) -> Result<String, KeyError> {
    let pair = pair()?;
    let (secret, public) = (folder.join("firelane.key"), folder.join("firelane.pub"));
    if public.exists() {
        return Err(KeyError::Exists { path: public });
    }
    fs::create_dir_all(folder).map_err(at("create", folder))?;
    create(&secret, &secret_text(&pair.sk)?, 0o600)?;
    create(&public, &public_text(&pair.pk)?, 0o644)?;
    Ok(key_id(pair.pk.keynum()))
}

/// A key's id as minisign prints it: its eight bytes as a little-endian number, in upper-case hex.
pub(super) fn key_id(keynum: &[u8]) -> String {
    keynum
        .iter()
        .rev()
        .map(|byte| format!("{byte:02X}"))
        .collect()
}

/// Makes a folder that only its owner can look into.
pub(super) fn private_folder(folder: &Path) -> Result<(), FileError> {
    let mut builder = DirBuilder::new();
    let made = builder.recursive(true).mode(0o700).create(folder);
    made.map_err(at("create", folder))
}

fn pair() -> Result<KeyPair, KeyError> {
    KeyPair::generate_unencrypted_keypair().map_err(|error| KeyError::Make(error.to_string()))
}

fn secret_text(key: &SecretKey) -> Result<String, KeyError> {
    let text = key.to_box(Some("firelane signing key, without a password"));
    text.map(SecretKeyBox::into_string)
        .map_err(|error| KeyError::Make(error.to_string()))
}

fn public_text(key: &PublicKey) -> Result<String, KeyError> {
    let text = key.to_box();
    text.map(minisign::PublicKeyBox::into_string)
        .map_err(|error| KeyError::Make(error.to_string()))
}

fn create(path: &Path, text: &str, mode: u32) -> Result<(), KeyError> {
    let mut options = OpenOptions::new();
    options.write(true).mode(mode).create_new(true);
    let mut file = match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(KeyError::Exists {
                path: path.to_owned(),
            });
        }
        opened => opened.map_err(at("create", path))?,
    };
    file.write_all(text.as_bytes()).map_err(at("write", path))?;
    Ok(file.sync_all().map_err(at("flush", path))?)
}

fn read_public(path: &Path) -> Result<PublicKey, KeyError> {
    let wrong = |reason: String| KeyError::NotAKey {
        path: path.to_owned(),
        what: "public key",
        reason,
    };
    let text = read_text(path)?.ok_or_else(|| wrong("it is too long, or no text".to_owned()))?;
    if text.lines().count() < 2 {
        return Err(wrong("it has fewer than two lines".to_owned()));
    }
    PublicKey::from_box(text.into()).map_err(|error| wrong(error.to_string()))
}

fn read_secret(path: &Path) -> Result<SecretKey, KeyError> {
    let wrong = |reason: String| KeyError::NotAKey {
        path: path.to_owned(),
        what: "secret key",
        reason,
    };
    let mode = path
        .metadata()
        .map_err(at("read", path))?
        .permissions()
        .mode()
        & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Exposed {
            path: path.to_owned(),
            mode,
        });
    }
    let text = read_text(path)?.ok_or_else(|| wrong("it is too long, or no text".to_owned()))?;
    SecretKeyBox::from_string(&text)
        .and_then(SecretKeyBox::into_unencrypted_secret_key)
        .map_err(|error| wrong(error.to_string()))
}

/// The file, unless it is too long or no text.
fn read_text(path: &Path) -> Result<Option<String>, FileError> {
    let meta = path.metadata().map_err(at("read", path))?;
    if meta.len() > MAX_KEY_BYTES {
        return Ok(None);
    }
    Ok(String::from_utf8(fs::read(path).map_err(at("read", path))?).ok())
}
