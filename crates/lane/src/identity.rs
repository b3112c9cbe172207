//! Keys of one lane: with which we log in, and with which the machine shows itself.
//!
//! Both are made here, before there is a machine. The host's is planted by cloud-init, so that even
//! the first connection is to the machine that was asked for and to no other. Keys are ed25519, in
//! OpenSSH's formats, made by `ssh-keygen`; nothing of them leaves the lane's folder but what
//! cloud-init gets.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use firelane_model::lane::Label;

/// File of the key that logs in; `.pub` is appended for its public half.
pub const KEY: &str = "id";
/// File of the machine's key.
pub const HOST_KEY: &str = "host_key";
/// The machine's key as SSH clients look it up, under [`alias`].
pub const KNOWN_HOSTS: &str = "known_hosts";

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// `ssh-keygen` could not be started.
    #[error("cannot start ssh-keygen, which is of the package openssh-client")]
    Missing(#[source] io::Error),
    /// `ssh-keygen` failed.
    #[error("ssh-keygen made no key: {0}")]
    Refused(String),
}

/// The keys of a lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// A line for `authorized_keys`.
    pub public: String,
    /// The machine's private key, as a PEM file of OpenSSH's.
    pub host_private: String,
    /// Its public half.
    pub host_public: String,
}

/// Name under which the machine's key is known: its address may change, and be another's later.
pub fn alias(label: &Label) -> String {
    format!("firelane-{label}")
}

/// The keys in a lane's folder; made if there are none.
pub fn make(folder: &Path, label: &Label) -> Result<Identity, IdentityError> {
    let (key, host) = (folder.join(KEY), folder.join(HOST_KEY));
    let name = alias(label);
    generate(&key, &name)?;
    generate(&host, &name)?;
    let identity = Identity {
        public: read(&public(&key))?,
        host_private: read(&host)?,
        host_public: read(&public(&host))?,
    };
    let known = folder.join(KNOWN_HOSTS);
    fs::write(&known, format!("{name} {}\n", identity.host_public.trim())).map_err(|source| {
        IdentityError::Io {
            doing: "write",
            path: known,
            source,
        }
    })?;
    Ok(identity)
}

fn public(key: &Path) -> PathBuf {
    key.with_extension("pub")
}

/// Makes a key unless there is one. One that was begun by a killed process lacks its public half,
/// which is written last, and is made anew.
fn generate(key: &Path, comment: &str) -> Result<(), IdentityError> {
    if public(key).exists() {
        return Ok(());
    }
    match fs::remove_file(key) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(IdentityError::Io {
                doing: "remove",
                path: key.to_owned(),
                source: error,
            });
        }
        _ => {}
    }
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", comment, "-f"])
        .arg(key)
        .stdin(Stdio::null())
        .output()
        .map_err(IdentityError::Missing)?;
    if made.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&made.stderr).trim().to_owned();
    Err(IdentityError::Refused(said))
}

fn read(path: &Path) -> Result<String, IdentityError> {
    fs::read_to_string(path).map_err(|source| IdentityError::Io {
        doing: "read",
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_made_once_and_again_if_they_are_half_made() {
        let folder = tempfile::tempdir().unwrap();
        let label = "mine".parse().unwrap();
        let first = make(folder.path(), &label).unwrap();
        assert!(first.public.starts_with("ssh-ed25519 "));
        assert!(first.host_private.contains("OPENSSH PRIVATE KEY"));
        assert_eq!(make(folder.path(), &label).unwrap(), first);
        let known = fs::read_to_string(folder.path().join(KNOWN_HOSTS)).unwrap();
        assert!(known.starts_with("firelane-mine ssh-ed25519 "));

        fs::remove_file(folder.path().join("host_key.pub")).unwrap();
        let second = make(folder.path(), &label).unwrap();
        assert_eq!(second.public, first.public);
        assert_ne!(second.host_private, first.host_private);
        let known = fs::read_to_string(folder.path().join(KNOWN_HOSTS)).unwrap();
        assert!(known.contains(second.host_public.trim().rsplit_once(' ').unwrap().0));
    }

    #[test]
    fn nobody_else_reads_them() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().unwrap();
        make(folder.path(), &"mine".parse().unwrap()).unwrap();
        for name in [KEY, HOST_KEY] {
            let mode = fs::metadata(folder.path().join(name))
                .unwrap()
                .permissions();
            assert_eq!(mode.mode() & 0o077, 0, "{name}");
        }
    }
}
