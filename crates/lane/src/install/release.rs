//! Which programs are installed, and where they are from.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Programs of a release, all of which are needed.
const PROGRAMS: [&str; 4] = [
    "firelane",
    "firelane-hostd",
    "firelane-guest",
    "firelane-bare",
];

/// Why a folder holds no release.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// A program is missing.
    #[error("cannot read {}, which is a program of a release", path.display())]
    Missing {
        /// Where it should be.
        path: PathBuf,
        /// Why it cannot be read.
        #[source]
        source: io::Error,
    },
    /// A folder without sources.
    #[error("{} is missing: these are no sources of Firelane", path.display())]
    NoSources {
        /// What every copy of the sources has.
        path: PathBuf,
    },
    /// A file that is no program of this kind of machine.
    #[error("{} is no program for x86-64 Linux", path.display())]
    Foreign {
        /// Which file.
        path: PathBuf,
    },
}

/// Where the programs are from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Origin {
    /// They are in this folder.
    Built(PathBuf),
    /// The machine builds them of what is in this folder.
    Sources(PathBuf),
}

/// Programs that can be installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    origin: Origin,
    firecracker: Option<PathBuf>,
    /// Name of a template, and a part of a store that has it.
    template: Option<(String, PathBuf)>,
}

impl Release {
    /// Those in this folder, for example `bin` of an unpacked release.
    pub fn find(folder: &Path) -> Result<Release, ReleaseError> {
        for name in PROGRAMS {
            check(&folder.join(name))?;
        }
        Ok(Release::from(Origin::Built(folder.to_owned())))
    }

    /// Those that the machine builds of the sources in this folder. It needs a way to Debian's packages and to crates
    /// for that, and some GiB of disk.
    ///
    /// # Errors
    /// [`ReleaseError::NoSources`].
    pub fn of_sources(folder: &Path) -> Result<Release, ReleaseError> {
        for name in ["Makefile", "Cargo.toml"] {
            let path = folder.join(name);
            if !path.is_file() {
                return Err(ReleaseError::NoSources { path });
            }
        }
        Ok(Release::from(Origin::Sources(folder.to_owned())))
    }

    /// The same with a Firecracker, which hostd starts from then on. It has to be linked statically: nothing else is in its jail.
    ///
    /// # Errors
    /// As [`Release::find`].
    pub fn with_firecracker(self, path: &Path) -> Result<Release, ReleaseError> {
        check(path)?;
        let firecracker = Some(path.to_owned());
        Ok(Release {
            firecracker,
            ..self
        })
    }

    /// The same with a template, which the host's service uses from then on: a name, and a folder laid
    /// out as a store that has it. Without one, the host builds what it needs by itself.
    #[must_use]
    pub fn with_template(self, name: &str, store: &Path) -> Release {
        let template = Some((name.to_owned(), store.to_owned()));
        Release { template, ..self }
    }

    /// The template that is brought.
    pub(super) fn template(&self) -> Option<(&str, &Path)> {
        let (name, store) = self.template.as_ref()?;
        Some((name, store))
    }

    /// The sources, if the machine builds the programs.
    pub(crate) fn sources(&self) -> Option<&Path> {
        match &self.origin {
            Origin::Built(_) => None,
            Origin::Sources(folder) => Some(folder),
        }
    }

    /// The programs, each with the name that it gets, and where it is here; what the machine builds is not.
    pub(super) fn programs(&self) -> impl Iterator<Item = (&'static str, Option<PathBuf>)> {
        let here = |name: &str| match &self.origin {
            Origin::Built(folder) => Some(folder.join(name)),
            Origin::Sources(_) => None,
        };
        let own = PROGRAMS.iter().map(move |name| (*name, here(name)));
        let firecracker = self.firecracker.iter();
        own.chain(firecracker.map(|path| ("firecracker", Some(path.clone()))))
    }
}

impl From<Origin> for Release {
    fn from(origin: Origin) -> Release {
        Release {
            origin,
            firecracker: None,
            template: None,
        }
    }
}

/// Whether it can be read, and is a program.
fn check(path: &Path) -> Result<(), ReleaseError> {
    let path = path.to_owned();
    let mut head = [0; 20];
    let read = File::open(&path).and_then(|mut file| file.read_exact(&mut head));
    match read {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Err(ReleaseError::Foreign { path })
        }
        Err(source) => Err(ReleaseError::Missing { path, source }),
        Ok(()) if !is_program(&head) => Err(ReleaseError::Foreign { path }),
        Ok(()) => Ok(()),
    }
}

/// ELF, 64 bits, little-endian, for x86-64: `e_ident` and `e_machine` of the System V ABI's object
/// files (edition 4.1, chapter 4, and its AMD64 supplement, version 1.0, section 4.1).
fn is_program(head: &[u8; 20]) -> bool {
    head[..6] == [0x7f, b'E', b'L', b'F', 2, 1] && head[18..] == [62, 0]
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_release_has_all_programs_and_nothing_else_in_their_place() {
        let folder = tempfile::tempdir().unwrap();
        let missing = Release::find(folder.path()).unwrap_err().to_string();
        assert!(
            missing.ends_with("firelane, which is a program of a release"),
            "{missing}"
        );

        let itself = std::env::current_exe().unwrap();
        for name in PROGRAMS {
            fs::copy(&itself, folder.path().join(name)).unwrap();
        }
        let release = Release::find(folder.path()).unwrap();
        assert_eq!(release.programs().count(), PROGRAMS.len());

        fs::write(
            folder.path().join("firelane-hostd"),
            "#!/bin/sh\nexit 0 # a script\n",
        )
        .unwrap();
        let foreign = Release::find(folder.path()).unwrap_err().to_string();
        assert!(
            foreign.ends_with("firelane-hostd is no program for x86-64 Linux"),
            "{foreign}"
        );
    }
}
